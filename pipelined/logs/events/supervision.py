"""Log events of the parent: the daemon, its workers, its control socket, its configuration."""

from __future__ import annotations

from pipelined.logs.events.event import Event

__all__ = ["EVENTS"]

EVENTS = (
    Event(
        "daemon.starts",
        "the supervisor (pid %d) starts %d workers",
        "The parent is up and forks its workers.",
    ),
    Event(
        "counters.go_on",
        "the counters of the daemon before go on",
        "systemd kept their memory while the service restarted.",
    ),
    Event(
        "counters.begin",
        "the counters begin at zero, those of the daemon before cannot go on: %s",
        "Another version with other metrics, or room for other workers. Rates are right all the same.",
    ),
    Event(
        "endpoint.goes_on",
        "the endpoint goes on listening on %s:%d",
        "systemd kept its socket while the service restarted: who asked meanwhile gets an answer now.",
    ),
    Event(
        "endpoint.moved",
        "the endpoint's socket of the daemon before is not taken over: %s",
        "The endpoint is configured to listen elsewhere now, and does.",
    ),
    Event(
        "endpoint.socket_fails",
        "the endpoint opens a socket of its own, the one it had fails: %s",
        "The socket that the parent holds for it cannot be opened again.",
        "Nothing, if the endpoint is RUNNING; else free its port, or set another `endpoint.port`.",
    ),
    Event(
        "daemon.started",
        "every worker type has been started; the daemon is %s",
        "The start is over. Degraded: some worker did not come up; its own line says why.",
    ),
    Event(
        "daemon.stops",
        "the daemon stops: %s",
        "It was told to, or a worker's end decided it; why is said.",
    ),
    Event("daemon.ended", "the supervisor ends with exit code %d", "The last line of a daemon."),
    Event(
        "daemon.forced",
        "a second signal: what has not drained in %g s is killed",
        "Somebody did not want to wait for the drain. Nothing is lost: what was in hand is done again.",
        "Nothing; give a drain its time (`workers.*.drain_s`) where this is a habit.",
    ),
    Event(
        "reload.refused_signal",
        "SIGHUP changes nothing: %s",
        "A reload by signal came while the daemon starts, stops, or reloads already.",
        "Send it again when `pipelinectl status` says running; or use `pipelinectl reload`, which tells.",
    ),
    Event(
        "daemon.stacks",
        "SIGQUIT: the supervisor wrote its stacks, and goes on",
        "Somebody wants to see what it is doing. They stand before this line, in its error output, which is "
        "where the log goes. A worker writes its own, when it is sent SIGQUIT itself.",
    ),
    Event(
        "daemon.meaningless_signal",
        "%s means nothing to this daemon, it goes on",
        "SIGUSR1 or SIGUSR2 came, which some programs take for `reopen the logs`. There are none to reopen.",
        "Have whoever sends it stop. HUP reloads, QUIT shows the stacks, TERM stops.",
    ),
    Event(
        "worker.state",
        "worker %s/%d is %s%s",
        "A worker changed its state; the field `state` has it, `reason` says why. RUNNING and STOPPED "
        "are told as INFO, BACKOFF and EXITED as WARNING, FATAL as ERROR.",
        "BACKOFF and EXITED: look at the worker's own last lines. FATAL: mend what its reason names, "
        "then `pipelinectl start TYPE`.",
    ),
    Event(
        "worker.unkillable",
        "worker %s/%d (pid %d) does not die of SIGKILL: it waits in the kernel, for a disk or a mount",
        "A process that the kernel cannot end, as it waits for a device. Its place stays taken.",
        "Look at the disk or the network mount that it uses; it ends by itself once that answers.",
    ),
    Event(
        "worker.ended",
        "worker %s/%d ends with exit code %d: %s",
        "The worker cannot go on. The parent starts it again, later and later; exit code 78 is final.",
        "78: mend the configuration that the sentence names. 69, 75: it mends itself when what it names "
        "is back. 70: a bug; report it with the traceback.",
    ),
    Event(
        "worker.overlooked",
        "worker %s gave no sign for %.0f s and was not found hung: systemd's watchdog is fed no longer, "
        "so that it ends and restarts this daemon",
        "The parent failed to deal with a hung worker, and so has itself restarted.",
        "Report it as a bug, with the stacks that systemd's SIGABRT writes to the journal.",
    ),
    Event(
        "systemd.unheard",
        "systemd does not take what it is told, it is told again: %s",
        "A message to systemd (ready, status, watchdog) was not taken; the next one is.",
        "Nothing if it ends by itself. Else see whether systemd is overloaded: `systemctl status`.",
    ),
    Event(
        "control.no_descriptors",
        "the control socket takes no connection for a second: %s",
        "Too many open files or too little memory on this machine.",
        "Raise LimitNOFILE= of the service, or see what uses up the descriptors.",
    ),
    Event(
        "control.peer_refused",
        "a request on the control socket was refused: the peer is not of our user or group",
        "Somebody without the right to it tried to control the daemon.",
        "Have operators in the daemon's group; else see who that was.",
    ),
    Event(
        "control.unanswered",
        "a request on the control socket could not be answered: %s",
        "A bug in the answer to one request. The daemon goes on.",
        "Report it with the traceback.",
    ),
    Event("control.broke", "a connection on the control socket broke: %s", "The peer hung up too early."),
    Event("operation.begun", "what was asked for", "A reload, restart or scale begins."),
    Event("operation.change", "KEY: OLD → NEW", "A key that a reload changes."),
    Event(
        "operation.done",
        "%s is done: %s",
        "A reload, restart or scale is over, each worker as it came out.",
    ),
    Event(
        "operation.failed",
        "%s is %s: %s",
        "refused: the new configuration is wrong, and nothing was changed. failed: a worker did not come "
        "up; a reload and a scale were put back. abandoned: the daemon stopped meanwhile.",
        "Mend what the sentence names and ask again.",
    ),
    Event(
        "operation.worker_differs",
        "WORKER: OUTCOME",
        "During a restart or reload this worker did not come out as wanted.",
        "Look at its own last lines.",
    ),
    Event(
        "operation.put_back",
        "%s; going back to what was before",
        "A worker did not come up with the new settings; those that had them already get the old ones.",
        "Mend the configuration; meanwhile the old one works.",
    ),
    Event(
        "operation.check_broke",
        "the new configuration could not be checked",
        "A bug in the check, or too little memory for its process. Nothing was changed.",
        "Report it with the traceback.",
    ),
    Event(
        "log.level_changed",
        "the log level of %s is %s now",
        "An operator or a reload changed the level. What `pipelinectl log-level` sets ends with the daemon.",
    ),
    Event(
        "events.unwritten",
        "events cannot be written to %s: %s; the last %d stay in memory until they can be",
        "The file of `pipelinectl events` cannot be written: a full disk, or rights.",
        "Make room in `state_dir`, or give the daemon's user the right to write there.",
    ),
    Event(
        "events.written_again",
        "events are written to %s again, %d are missing in it",
        "The file of `pipelinectl events` can be written again.",
    ),
    Event(
        "preflight.timed_out",
        "the brokers did not answer within %g s; starting all the same, the workers wait",
        "Kafka could not be asked whether topics and limits fit. The workers ask again.",
        "See whether the brokers of `kafka.bootstrap` are up and reachable from here.",
    ),
    Event(
        "preflight.unavailable",
        "%s; starting all the same, the workers wait",
        "Kafka cannot be reached at the start.",
        "See whether the brokers of `kafka.bootstrap` are up and reachable from here.",
    ),
    Event(
        "preflight.members_unknown",
        "whether more processes ran here before is not known: %s",
        "Where this host ran more processes before, their partitions wait until the session times out.",
        "Nothing; `pipelinectl members` shows who has what.",
    ),
    Event(
        "reload.brokers_silent",
        "%s; going on all the same, the workers wait",
        "The brokers did not answer while a new configuration was checked that does not concern them.",
        "See whether the brokers are up.",
    ),
    Event(
        "log.dropped",
        "Log lines were dropped: their reader did not take them",
        "journald, the pipe's reader or the disk did not take lines in time; `lines` says how many are "
        "missing. The work went on meanwhile.",
        "See [the runbook](../runbooks/LogMessagesDropped.md).",
    ),
    Event(
        "log.goes_on",
        "the log goes on in a new file; what was logged before is in %s",
        "`pipelined.log` of a daemon in the background was full (`logs.file_mb`).",
    ),
    Event(
        "log.not_put_aside",
        "the log file %s is full and cannot be put aside: %s",
        "A new file could not be made, or the full one not be renamed. The log goes on in it, and grows.",
        "See that the disk has room and that the folder is the daemon user's; it is tried again each minute.",
    ),
    Event(
        "process.uncaught",
        "Uncaught exception",
        "A bug, or something that nobody foresaw, ended the process.",
        "Report it with the traceback.",
    ),
    Event(
        "process.uncaught_in_thread",
        "Uncaught exception in a thread",
        "A bug ended one thread; the process may go on without it, until its hang is found.",
        "Report it with the traceback.",
    ),
    Event(
        "crashpoints.armed",
        "crash points are on, for tests only: %s; armed now: %s",
        "The environment has workers kill themselves at certain points.",
        "Never in production: remove the variable. See [crash points](crash-points.md).",
    ),
)
