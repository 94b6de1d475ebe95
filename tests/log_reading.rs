//! `multusctl log`: what it shows is what programs wrote, once and in order, wherever it is by now; `--sync` returns
//! when it is on storage; and nobody waits for who reads, or does not.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use harness::mounts::{fill, in_own_mounts, memory_at};
use harness::real::need_root;
use harness::{Instance, await_condition, signal, supervisor_of, wait};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Says so many numbered lines, the last one also to standard error; says that it has, stays.
const TALK: &str = "i=0\nwhile [ $i -lt ${1:-300} ]; do i=$((i+1)); echo \"line $i\"; done\necho \"error $i\" >&2\n\
                    echo > \"${0%/*}/talked\"\nexec \"${0%/*}/sleeper\" 1000";

/// A line per hundredth of a second, without end.
const TICK: &str = "i=0\nwhile :; do i=$((i+1)); echo \"tick $i\"; \"${0%/*}/sleeper\" 0.01; done";

/// Fills any pipe within seconds; not faster than the log takes it on a machine that does much else.
const FLOOD: &str = "while :; do i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done\n\
                     \"${0%/*}/sleeper\" 0.1; done";

/// Nothing is written by time.
const LATE: &str = "[log]\nflush = 1h\n";

const TALKER: &str = "[program:talk]\ncommand = %(here)s/talk\nstartsecs = 0\nstdout_logfile = %(here)s/logs/out\n\
    stderr_logfile = %(here)s/logs/err\nstdout_logfile_maxbytes = 4KB\nstdout_logfile_backups = 5\n";

const TICKER: &str = "[program:tick]\ncommand = %(here)s/tick\nstartsecs = 0\n";

fn instance(test: &str, config: &str) -> Instance {
    Instance::scripted(test, "", &[("talk", TALK), ("tick", TICK)], config)
}

/// The text of lines, without their stamps.
fn texts(shown: &str) -> Vec<&str> {
    shown
        .lines()
        .map(|line| line.splitn(3, ' ').nth(2).unwrap_or_else(|| panic!("no stamp: {line}")))
        .collect()
}

fn numbered(word: &str, range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|number| format!("{word} {number}")).collect()
}

/// `multusctl log -f` with these words, and its lines as they come.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn begin(instance: &Instance, words: &[&str]) -> Follower {
        let mut command = Command::new(harness::binary());
        command.arg("multusctl").arg("--run-dir").arg(instance.run_dir()).args(["log", "-f"]).args(words);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Follower { child, lines }
    }

    /// The text of the next line.
    fn next(&self) -> String {
        let line = self.lines.recv_timeout(Duration::from_secs(30)).expect("a line");
        texts(&line)[0].to_owned()
    }

    /// Reads on until this line has come; all until then.
    fn until(&self, last: &str) -> Vec<String> {
        let mut all = Vec::new();
        while all.last().is_none_or(|line| line != last) {
            all.push(self.next());
        }
        all
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_last_lines_are_shown_wherever_they_are_by_now() {
    for (at, late) in ["", LATE].into_iter().enumerate() {
        let mut instance = instance(&format!("log-last-{at}"), &format!("{late}{TALKER}"));
        instance.await_lines("talked", 1);
        let last = |words: &[&str]| instance.ctl_ok(&[&["log", "--stdout"], words].concat());
        instance.await_that("all are shown", || last(&["talk"]).contains("line 300\n"));
        // In several rotated files, in the file, in no file yet; or some of these.
        for count in [1, 7, 60, 100, 250] {
            let shown = last(&["talk", "-n", &count.to_string()]);
            assert_eq!(texts(&shown), numbered("line", 301 - count..=300), "{count}");
        }
        assert_eq!(texts(&last(&[])), numbered("talk: line", 201..=300), "100, and of all programs");
        assert_eq!(texts(&last(&["talk", "-n", "400"])), numbered("line", 1..=300));
        assert!(last(&["-n", "0"]).is_empty());
        // After the end of all that a file has what was shown.
        let shown = last(&["talk", "-n", "5"]);
        instance.quit_clean();
        let text = instance.read("logs/out");
        assert!(text.ends_with(&shown), "{text}\nis not\n{shown}");
        let files = fs::read_dir(instance.dir.join("logs")).unwrap().count();
        assert!(files > 4, "{files} files");
    }
}

#[test]
fn lines_of_all_streams_stand_in_the_order_of_their_dates_and_can_be_told_apart() {
    let mut instance = instance("log-merged", &format!("{LATE}{TALKER}{TICKER}"));
    instance.await_lines("talked", 1);
    instance.await_that("said", || instance.ctl_ok(&["log", "talk"]).contains("error 300"));
    let shown = instance.ctl_ok(&["log", "talk", "-n", "500"]);
    let lines = texts(&shown);
    assert_eq!((lines.len(), lines.iter().filter(|line| line.starts_with("error")).count()), (301, 1));
    assert_eq!(texts(&instance.ctl_ok(&["log", "talk", "--stderr"])), ["error 300"]);
    // Of several programs each line says whose it is; dates only grow.
    let shown = instance.ctl_ok(&["log", "t*", "-n", "400"]);
    assert!(shown.contains(" talk: line 299\n") && shown.contains(" tick: tick 1\n"), "{shown}");
    let dates: Vec<_> = shown.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(dates.is_sorted(), "{shown}");
    let json = instance.ctl_ok(&["log", "talk", "--stderr", "--json"]);
    let (begin, end) =
        ("{\"name\":\"talk\",\"stream\":\"stderr\",\"date\":\"20", ",\"text\":\"error 300\"}\n");
    assert!(json.starts_with(begin) && json.ends_with(end) && json.contains("Z\",\"at_ms\":"), "{json}");
    assert_eq!(
        texts(&instance.ctl_ok(&["log", "talk", "--stdout", "--since", "1h"])),
        numbered("line", 1..=300)
    );
    wait(Duration::from_millis(20));
    assert_eq!(instance.ctl_ok(&["log", "talk", "--since", "1ms"]), "");
    instance.quit_clean();
}

#[test]
fn who_may_not_read_or_asks_for_what_is_not_there_is_told_so() {
    need_root();
    let silent =
        "[program:mute]\ncommand = %(here)s/sleeper 1000\nstdout_logfile = NONE\nstderr_logfile = NONE\n";
    let mut instance = instance("log-refused", &format!("{TICKER}{silent}"));
    let said = |words: &[&str]| {
        let output = instance.ctl(words);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(
        said(&["log", "mute"]),
        (Some(1), "multusctl: mute writes nothing that goes to a log\n".into())
    );
    assert_eq!(said(&["log", "tock"]).0, Some(4));
    for words in [&["log"][..], &["log", "--sync"], &["log", "--usage"]] {
        let output = instance.ctl_as(65534, 65534, &[], words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), text),
            (Some(5), "multusctl: only root may do this\n".into()),
            "{words:?}"
        );
        assert!(output.stdout.is_empty());
    }
    instance.write_config("");
    instance.ctl_ok(&["reload", "--wait"]);
    instance.write_config(silent);
    instance.ctl_ok(&["reload", "--wait"]);
    instance.quit_clean();
}

#[test]
fn a_follower_sees_every_line_once_while_log_and_the_supervisor_are_killed() {
    let mut instance = instance("log-follow", &format!("{LATE}{TICKER}"));
    let follower = Follower::begin(&instance, &["tick", "-n", "1000"]);
    assert_eq!(follower.next(), "tick 1");
    let mut seen = 1;
    for round in 0..6 {
        let log = instance.await_state("log", "running");
        let killed = if round % 2 == 0 { log.pid.unwrap() } else { supervisor_of(instance.guard_pid()) };
        signal(killed, libc::SIGKILL);
        let next = seen + 30;
        assert_eq!(
            follower.until(&format!("tick {next}")),
            numbered("tick", seen + 1..=next),
            "{}",
            instance.log()
        );
        seen = next;
    }
    // Whatever is said to the last breath is shown, then that it was the last.
    assert_eq!(instance.quit(), 0);
    let rest: Vec<_> = follower.lines.iter().map(|line| texts(&line)[0].to_owned()).collect();
    assert_eq!(rest, numbered("tick", seen + 1..=seen + rest.len() as u64));
    let mut follower = follower;
    assert_eq!(follower.child.wait().unwrap().code(), Some(7));
    let mut words = String::new();
    follower.child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert!(words.starts_with("multusctl: no multusd answers"), "{words}");
}

#[test]
fn events_are_numbered_on_when_the_supervisor_is_replaced() {
    let mut instance = instance("log-events", TICKER);
    let numbers = || {
        let text = instance.ctl_ok(&["events", "--past", "--json"]);
        let number = |line: &str| line["{\"seq\":".len()..line.find(',').unwrap()].parse::<u64>().unwrap();
        text.lines().map(number).collect::<Vec<_>>()
    };
    instance.await_state("tick", "running");
    let before = numbers();
    assert_eq!(before.first(), Some(&1));
    let supervisor = supervisor_of(instance.guard_pid());
    signal(supervisor, libc::SIGKILL);
    instance.await_that("another", || instance.ctl(&["status"]).status.success());
    instance.ctl_ok(&["restart", "tick", "--wait"]);
    let after = numbers();
    assert!(after[0] > *before.last().unwrap() && after.is_sorted(), "{before:?} {after:?}");
    instance.quit_clean();
}

#[test]
fn a_follower_of_all_sees_a_program_that_comes_later() {
    let mut instance = instance("log-new", &format!("{LATE}{TICKER}"));
    let follower = Follower::begin(&instance, &["-n", "0"]);
    follower.next();
    instance.write_config(&format!("{LATE}{TICKER}{TALKER}"));
    instance.ctl_ok(&["reload"]);
    let lines = follower.until("talk: error 300");
    let talk: Vec<_> = lines.iter().filter(|line| line.contains("line")).cloned().collect();
    assert_eq!(talk, numbered("talk: line", 1..=300));
    // What cannot be changed while it is in use says so.
    instance.write_config(&format!("[log]\nflush = 1h\nring = 1MB\n{TICKER}{TALKER}"));
    instance.ctl_ok(&["reload"]);
    let about = instance.ctl_ok(&["status"]);
    assert!(about.contains("[log] ring: it has 256 KB until multusd is started anew"), "{about}");
    drop(follower);
    instance.quit_clean();
}

#[test]
fn a_follower_that_never_reads_disturbs_nobody() {
    let flood = "[program:flood]\ncommand = %(here)s/flood\n[log]\nram_only = yes\n";
    let scripts = [("tick", TICK), ("flood", FLOOD)];
    let mut instance = Instance::scripted("log-deaf", "", &scripts, &format!("{TICKER}{flood}"));
    // Its pipe is full at once, and stays so.
    let mut command = Command::new(harness::binary());
    command.arg("multusctl").arg("--run-dir").arg(instance.run_dir()).args(["log", "-f"]);
    let (_unread, full) = std::io::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(full.try_clone().unwrap()).stderr(Stdio::null());
    let mut deaf = command.spawn().unwrap();
    // How many bytes that are depends on how large the writes were.
    let is_full = || {
        let mut ends = [PollFd::new(full.as_fd(), PollFlags::POLLOUT)];
        poll(&mut ends, PollTimeout::ZERO) == Ok(0)
    };
    assert!(await_condition(is_full), "{}", instance.log());
    let said = |name: &str| {
        let text = instance.ctl_ok(&["log", "--usage", name]);
        text.lines().nth(1).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = said("flood");
    instance.await_that("goes on", || said("flood") != before);
    assert_eq!(said("tick").last().unwrap(), "0", "dropped");
    assert_eq!(instance.status().programs.iter().map(|program| program.restarts).sum::<u32>(), 0);
    assert!(deaf.try_wait().unwrap().is_none());
    deaf.kill().unwrap();
    deaf.wait().unwrap();
    instance.quit_clean();
}

#[test]
fn sync_returns_when_everything_is_in_the_files_and_not_when_it_cannot_be() {
    need_root();
    in_own_mounts(|| {
        // Without rotated files, whose end would make room.
        let config = format!("{LATE}{TALKER}").replace("maxbytes = 4KB", "maxbytes = 0");
        let mut instance = Instance::scripted_only("log-sync", "", &[("talk", TALK)], &config);
        let logs = instance.dir.join("logs");
        fs::create_dir(&logs).unwrap();
        memory_at(&logs, "size=256k", 0);
        instance.launch();
        for round in 1..=5 {
            instance.await_lines("talked", 1);
            fs::remove_file(instance.dir.join("talked")).unwrap();
            instance.ctl_ok(&["log", "--sync"]);
            let text = instance.read("logs/out");
            assert!(
                text.ends_with(" line 300\n") && instance.lines("logs/err").len() == round,
                "{round}: {text}"
            );
            instance.ctl_ok(&["restart", "talk"]);
        }
        instance.await_lines("talked", 1);
        instance.ctl_ok(&["log", "--sync"]);
        fill(&logs);
        fs::remove_file(instance.dir.join("talked")).unwrap();
        instance.ctl_ok(&["restart", "talk"]);
        instance.await_lines("talked", 1);
        let output = instance.ctl(&["log", "--sync", "--timeout", "1s"]);
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(6), "{words}");
        assert_eq!(words, "multusctl: timed out after 1.0s: storage takes nothing\n");
        // It is shown all the same, and is known to whoever asks what happened.
        assert!(instance.ctl_ok(&["log", "talk", "-n", "2"]).contains("line 300"));
        assert!(instance.ctl_ok(&["log", "--usage"]).ends_with("storage takes nothing\n"));
        instance.await_that("an event", || {
            instance.ctl_ok(&["events", "--past"]).contains("logs/out: No space left on device; lines wait")
        });
        instance.quit();
    });
}

#[test]
fn what_is_in_memory_only_is_shown_and_is_never_called_synced() {
    let mut instance = instance("log-ram", &format!("[log]\nram_only = yes\n{TALKER}"));
    instance.await_lines("talked", 1);
    instance.await_that("all are shown", || instance.ctl_ok(&["log", "--stdout"]).contains("line 300\n"));
    assert_eq!(texts(&instance.ctl_ok(&["log", "talk", "--stdout", "-n", "400"])), numbered("line", 1..=300));
    let output = instance.ctl(&["log", "--sync"]);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), &*words),
        (Some(1), "multusctl: [log] ram_only = yes: nothing is written to storage\n")
    );
    assert!(!instance.dir.join("logs").exists());
    instance.quit_clean();
}

#[test]
fn what_a_log_costs_is_counted_and_too_much_in_a_day_is_an_event() {
    let mut instance =
        instance("log-usage", &format!("[log]\nflush = 10ms\ndaily_alarm = 2KB\n{TALKER}{TICKER}"));
    instance.await_lines("talked", 1);
    instance.ctl_ok(&["log", "--sync"]);
    instance.await_that("an event", || instance.ctl_ok(&["events", "--past"]).contains("daily_alarm = 2048"));
    let events = instance.ctl_ok(&["events", "--past"]);
    assert_eq!(events.matches("] multusd: log: talk: ").count(), 1, "{events}");
    let json = instance.ctl_ok(&["log", "--usage", "talk", "--json"]);
    // 300 lines and their stamps; one of standard error.
    let said = (1..=300).map(|number| format!("line {number}\n").len()).sum::<usize>() + "error 300\n".len();
    let number = |key: &str| -> usize {
        let rest = &json[json.find(&format!("\"{key}\":")).unwrap() + key.len() + 3..];
        rest[..rest.find([',', '}']).unwrap()].parse().unwrap()
    };
    assert_eq!((number("said_bytes"), number("dropped_lines")), (said, 0), "{json}");
    let bytes = ["out", "out.1", "out.2", "out.3", "out.4", "out.5", "err"];
    let bytes: usize = bytes.iter().map(|name| instance.read(&format!("logs/{name}")).len()).sum();
    assert_eq!((number("written_bytes"), number("written_today_bytes")), (bytes, bytes), "{json}");
    instance.quit_clean();
}

#[test]
fn a_log_whose_multusd_is_gone_takes_what_programs_still_say_and_ends_with_the_last_of_them() {
    let programs = "[program:one]\ncommand = %(here)s/asked\nstartsecs = 0\nstdout_logfile = %(here)s/logs/one\n\
                    [program:two]\ncommand = %(here)s/asked\nstartsecs = 0\nstdout_logfile = %(here)s/logs/two\n";
    let asked = "trap 'kill $!; echo asked; exit' TERM; echo here; while :; do \"${0%/*}/sleeper\" 1000 & wait $!; done";
    let mut instance = Instance::scripted("log-orphan", "", &[("asked", asked)], programs);
    let [log, one, two] =
        ["log", "one", "two"].map(|name| instance.await_state(name, "running").pid.unwrap());
    instance.await_that("they are here", || {
        instance.ctl_ok(&["log", "--sync"]);
        ["logs/one", "logs/two"].iter().all(|name| instance.read(name).ends_with("here\n"))
    });
    instance.kill_both();
    signal(one, libc::SIGTERM);
    assert!(
        await_condition(|| instance.read("logs/one").ends_with("asked\n")),
        "{}",
        instance.read("logs/one")
    );
    // It waits for the other, and for nothing else.
    let ticks = || -> u64 {
        let text = fs::read_to_string(format!("/proc/{log}/stat")).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    wait(Duration::from_secs(1));
    assert!(ticks() - before < 20, "{} hundredths of a second of a processor", ticks() - before);
    assert!(harness::is_alive(log));
    signal(two, libc::SIGTERM);
    assert!(await_condition(|| !harness::is_alive(log)), "it is there for ever");
    assert!(instance.read("logs/two").ends_with("asked\n"));
}
