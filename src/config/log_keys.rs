//! Rows: what becomes of the lines that programs write, for all of them and for one.

use super::assemble::Draft;
use super::keys::Kind::{Bool, Choice, Duration, Number, Other, Size, Word};
use super::keys::{Key, RING, SYSLOG, key};
use super::target::server;
use super::value::Wrong;
use super::words;
use super::{LogStamp, Syslog};
use crate::limits::{LOG_RING_BYTES_MAX, LOG_RING_BYTES_MIN};

pub(super) static LOG: &[Key] = &[
    key!("ring", Other(RING, ring), "256KB", "1MB",
        "Memory that holds lines until they are in their files.").web(),
    key!("flush", Duration(10, |d, v| d.log.flush = v), "10s", "1min",
        "Lines wait at most this long, so that storage is written seldom; 16KB of a program, a failure and `multusctl log --sync` are written at once.").web(),
    key!("total_maxbytes", Size(1 << 16, |d, v| d.log.total_maxbytes = v), "64MB", "16MB",
        "All log files together; above that the oldest rotated file of the largest log goes.").web(),
    key!("ram_only", Bool(|d, v| d.log.ram_only = v), "false", "true",
        "Nothing is written to storage; what the ring holds is all there is.").web(),
    key!("compress", Other("a command with an absolute path", compress), "(none)", "/bin/gzip",
        "Filter through which a rotated file becomes x.1.gz, with low priority and at most 60s."),
    key!("syslog", Other(SYSLOG, syslog), "local", "udp:192.168.1.2:514",
        "Where lines go whose program has stdout_syslog or stderr_syslog: no, local (/dev/log) or udp:ADDRESS:PORT (RFC 5424). Never waited for."),
    key!("kmsg", Bool(|d, v| d.log.kmsg = v), "true", "false",
        "Lines whose program has log_kmsg go to the kernel's log, which a reset may leave readable."),
    key!("daily_alarm", Size(0, |d, v| d.log.daily_alarm = v), "50MB", "5MB",
        "A program whose log is written more than this in a day of uptime is told of; 0 is never.").web(),
    key!("user", Word(|d, v| d.log.user = Some(v)), "(multusd's)", "logger",
        "User who writes the files, by name or number. Needs root."),
];

pub(super) static PROGRAM: &[Key] = &[
    key!("stdout_syslog", Bool(|d, v| d.program.stdout.syslog = v), "false", "true",
        "Standard output goes to syslog too; see syslog."),
    key!("stderr_syslog", Bool(|d, v| d.program.stderr.syslog = v), "false", "true",
        "Standard error goes to syslog too; see syslog."),
    key!("log_kmsg", Bool(|d, v| d.program.log.kmsg = v), "false", "true",
        "What it says goes to the kernel's log too; see kmsg."),
    key!("log_stamp", Choice(&["both", "wall", "monotonic", "none"], |d, v| d.program.log.stamp = STAMPS[v]), "both", "none",
        "What a line in its files begins with: the date (UTC), the seconds since boot, both or none.").web(),
    key!("log_sync", Bool(|d, v| d.program.log.sync = v), "false", "true",
        "Every line is on storage at once. Wears it out.").web(),
    key!("log_rate", Number(0, 1_000_000, |d, v| d.program.log.rate = v as u32), "0", "100",
        "Lines per second that each of its streams may write on average over 2s; more are dropped, counted and told of. 0 is no limit.").web(),
    key!("log_fold", Bool(|d, v| d.program.log.fold = v), "false", "true",
        "A line that is the same again is counted, not written.").web(),
];

const STAMPS: [LogStamp; 4] = [LogStamp::Both, LogStamp::Wall, LogStamp::Monotonic, LogStamp::None];

fn ring(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    draft.log.ring = super::value::size(text)?;
    match draft.log.ring {
        LOG_RING_BYTES_MIN..=LOG_RING_BYTES_MAX => Ok(()),
        _ => Err(Wrong::Range),
    }
}

fn compress(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    draft.log.compress = words::command(text)?;
    if text.starts_with('/') { Ok(()) } else { Err(Wrong::Kind) }
}

fn syslog(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    draft.log.syslog = match text {
        "no" => Syslog::No,
        "local" => Syslog::Local,
        _ => {
            let server = text.strip_prefix("udp:").and_then(|text| server(text, Some(514)));
            let server = server.ok_or(Wrong::Kind)?;
            Syslog::Udp { host: server.host.into(), is_six: server.is_six, port: server.port }
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_is_local_or_a_server_by_its_address() {
        let read = |text: &str| {
            let mut draft = Draft::default();
            syslog(&mut draft, text).map(|()| draft.log.syslog)
        };
        let udp = |host: &str, is_six, port| Ok(Syslog::Udp { host: host.into(), is_six, port });
        assert_eq!(read("no"), Ok(Syslog::No));
        assert_eq!(read("local"), Ok(Syslog::Local));
        assert_eq!(read("udp:192.168.1.2"), udp("192.168.1.2", false, 514));
        assert_eq!(read("udp:[fe80::1]:5514"), udp("fe80::1", true, 5514));
        for wrong in ["yes", "udp:", "udp:example.org:514", "tcp:1.2.3.4:514", "udp:1.2.3.4:0"] {
            assert_eq!(read(wrong), Err(Wrong::Kind), "{wrong}");
        }
    }

    #[test]
    fn a_ring_is_neither_too_small_nor_too_large() {
        for (text, is_good) in [("64KB", true), ("65535", false), ("16MB", true), ("17MB", false)] {
            assert_eq!(ring(&mut Draft::default(), text).is_ok(), is_good, "{text}");
        }
    }
}
