//! Rows: where output goes, and what rights and resources a process is given.

use super::LogFile;
use super::keys::Kind::{Bool, Limit, NoEffect, Number, Other, Size};
use super::keys::{CPUS, IOPRIO, Key, SCHEDULING, key, path};
use super::value::{self, Wrong};
use super::words;

/// A page of memory: less than that cannot be granted.
const PAGE_BYTES: u64 = 4096;

/// Rotated files kept at most; each costs a rename per rotation.
const BACKUPS_MAX: i64 = 1000;

pub(super) static OUTPUT: &[Key] = &[
    key!(
        "redirect_stderr",
        Bool(|d, v| d.program.redirect_stderr = v),
        "false",
        "true",
        "Standard error goes where standard output goes."
    )
    .restart(),
    key!(
        "stdout_logfile",
        Other(LOG, |d, v| {
            d.program.stdout.file = log_file(v)?;
            Ok(())
        }),
        "AUTO",
        "/data/log/pump.log",
        "File for standard output. AUTO is a file in log_dir, NONE throws it away. A change to or from NONE takes a restart."
    ),
    key!(
        "stdout_logfile_maxbytes",
        Size(0, |d, v| d.program.stdout.maxbytes = v),
        "1MB",
        "100KB",
        "The file is rotated when it is this large; 0 is never. The default is far below Supervisor's 50MB because boards have small, wearing storage."
    ),
    key!(
        "stdout_logfile_backups",
        Number(0, BACKUPS_MAX, |d, v| d.program.stdout.backups = v as u32),
        "1",
        "4",
        "Rotated files that are kept."
    ),
    key!(
        "stderr_logfile",
        Other(LOG, |d, v| {
            d.program.stderr.file = log_file(v)?;
            Ok(())
        }),
        "AUTO",
        "/data/log/pump.err",
        "File for standard error. AUTO is a file in log_dir, NONE throws it away. A change to or from NONE takes a restart."
    ),
    key!(
        "stderr_logfile_maxbytes",
        Size(0, |d, v| d.program.stderr.maxbytes = v),
        "1MB",
        "100KB",
        "The file is rotated when it is this large; 0 is never."
    ),
    key!(
        "stderr_logfile_backups",
        Number(0, BACKUPS_MAX, |d, v| d.program.stderr.backups = v as u32),
        "1",
        "4",
        "Rotated files that are kept."
    ),
];

pub(super) static RESOURCES: &[Key] = &[
    key!(
        "memory_max",
        Size(PAGE_BYTES, |d, v| d.program.memory_max = Some(v)),
        "(none)",
        "64MB",
        "Memory of all its processes together; above that the kernel kills. Needs control groups.",
    ),
    key!(
        "pids_max",
        Number(1, u32::MAX as i64, |d, v| d.program.pids_max = Some(v as u32)),
        "(none)",
        "50",
        "Processes and threads together. Needs control groups.",
    ),
    key!(
        "nice",
        Number(-20, 19, |d, v| d.program.nice = Some(v as i32)),
        "(multusd's)",
        "5",
        "Share of the CPU: -20 is most, 19 least.",
    )
    .restart(),
    key!(
        "scheduling",
        Other(SCHEDULING, |d, v| {
            d.program.scheduling = Some(value::scheduling(v)?);
            Ok(())
        }),
        "(multusd's)",
        "fifo:10",
        "Scheduling policy, with a real-time priority from 1 to 99 for fifo and rr.",
    )
    .restart(),
    key!(
        "cpu_affinity",
        Other(CPUS, |d, v| {
            d.program.cpu_affinity = Some(value::cpus(v)?);
            Ok(())
        }),
        "(all)",
        "0,2-3",
        "CPUs it may run on.",
    )
    .restart(),
    key!(
        "ioprio",
        Other(IOPRIO, |d, v| {
            d.program.ioprio = Some(value::ioprio(v)?);
            Ok(())
        }),
        "(multusd's)",
        "best-effort:7",
        "Share of the storage: 0 is most, 7 least.",
    )
    .restart(),
    key!(
        "oom_score_adj",
        Number(-1000, 1000, |d, v| d.program.oom_score_adj = Some(v as i32)),
        "(multusd's)",
        "500",
        "Whom the kernel kills when memory is short: 1000 first, -1000 never.",
    )
    .restart(),
    key!(
        "capabilities",
        Other("none or a list of capabilities", |d, v| {
            d.program.capabilities = Some(words::capabilities(v)?);
            Ok(())
        }),
        "(not touched)",
        "net_bind_service",
        "Exactly these rights of root are kept, also as another user; none takes all away.",
    )
    .restart(),
    key!(
        "no_new_privs",
        Bool(|d, v| d.program.no_new_privs = v),
        "false",
        "true",
        "It cannot gain rights, for example by sudo.",
    )
    .restart(),
    key!(
        "state_directory",
        Bool(|d, v| d.program.state_directory = v),
        "false",
        "true",
        "It has a directory of its own, programs/NAME in state_dir, that nobody else writes to; STATE_DIRECTORY says where.",
    )
    .restart(),
    key!(
        "limit_nofile",
        Limit(7, false),
        "(not set)",
        "1024 or 1024:4096",
        "Open files. All limits are given as NUMBER, SOFT:HARD or unlimited.",
    )
    .restart(),
    key!("limit_core", Limit(4, true), "(not set)", "0", "Size of a core dump.").restart(),
    key!("limit_data", Limit(2, true), "(not set)", "32MB", "Size of the data segment.").restart(),
    key!(
        "limit_as",
        Limit(9, true),
        "(not set)",
        "128MB",
        "Address space, which is more than the memory that is used.",
    )
    .restart(),
    key!("limit_fsize", Limit(1, true), "(not set)", "10MB", "Size of a file it writes.").restart(),
    key!("limit_stack", Limit(3, true), "(not set)", "1MB", "Size of the main thread's stack.").restart(),
    key!(
        "limit_nproc",
        Limit(6, false),
        "(not set)",
        "64",
        "Processes and threads of its user, also those outside of this program.",
    )
    .restart(),
    key!("limit_memlock", Limit(8, true), "(not set)", "64KB", "Memory that may be locked.").restart(),
    key!("limit_cpu", Limit(0, false), "(not set)", "3600", "Seconds of CPU time.").restart(),
    key!("limit_rtprio", Limit(14, false), "(not set)", "10", "The highest real-time priority it may set.")
        .restart(),
    key!(
        "limit_nice",
        Limit(13, false),
        "(not set)",
        "20",
        "The best niceness it may set, as 20 minus that niceness.",
    )
    .restart(),
    key!("limit_msgqueue", Limit(12, true), "(not set)", "100KB", "Bytes in POSIX message queues.").restart(),
    key!("limit_sigpending", Limit(11, false), "(not set)", "100", "Signals that may be queued.").restart(),
    key!(
        "limit_rss",
        Limit(5, true),
        "(not set)",
        "32MB",
        "Resident memory; today's kernels ignore it, see memory_max.",
    )
    .restart(),
    key!("limit_locks", Limit(10, false), "(not set)", "100", "File locks; today's kernels ignore it.")
        .restart(),
    key!(
        "limit_rttime",
        Limit(15, false),
        "(not set)",
        "200000",
        "Microseconds of real-time CPU time without a pause.",
    )
    .restart(),
];

/// Supervisor's keys for what multusd does not have.
pub(super) static NO_EFFECT: &[Key] = &[
    key!("stdout_capture_maxbytes", NoEffect, "(not set)", "0", "Supervisor's capture mode; no effect here."),
    key!("stderr_capture_maxbytes", NoEffect, "(not set)", "0", "Supervisor's capture mode; no effect here."),
    key!(
        "stdout_events_enabled",
        NoEffect,
        "(not set)",
        "false",
        "Supervisor's output events; no effect here."
    ),
    key!(
        "stderr_events_enabled",
        NoEffect,
        "(not set)",
        "false",
        "Supervisor's output events; no effect here."
    ),
    key!("serverurl", NoEffect, "(not set)", "AUTO", "Address of Supervisor's server; no effect here."),
];

const LOG: &str = "AUTO, NONE or an absolute path";

fn log_file(text: &str) -> Result<LogFile, Wrong> {
    Ok(match text {
        _ if text.eq_ignore_ascii_case("AUTO") => LogFile::Auto,
        _ if text.eq_ignore_ascii_case("NONE") => LogFile::None,
        _ => LogFile::Path(path(text)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_files() {
        assert_eq!(log_file("auto"), Ok(LogFile::Auto));
        assert_eq!(log_file("NONE"), Ok(LogFile::None));
        assert_eq!(log_file("/x"), Ok(LogFile::Path("/x".into())));
        assert_eq!(log_file("syslog"), Err(Wrong::Kind));
    }
}
