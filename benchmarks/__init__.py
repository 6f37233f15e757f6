"""The benchmarks: every figure from the real daemon on the real Kafka, with its bare loop beside it."""
