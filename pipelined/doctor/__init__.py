"""The doctor: each real dependency tried in turn, and what to do where one is not as it should be."""
