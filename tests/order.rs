//! Who starts after whom, and who stops before whom: by readiness, not by the clock.

mod harness;

use harness::Instance;
use harness::real::both_ways;

/// Writes a line when it starts and one when it is told to stop. `gate` is what it
/// waits for before it serves, `tell` how it says so.
fn noting(gate: &str, tell: &str) -> String {
    format!(
        "d=${{0%/*}}\nn=$1\necho \"up $n\" >> $d/open/order\n\
         trap 'echo \"down '$n'\" >> '$d'/open/order; exit 0' TERM\n{gate}\n\
         echo \"serves $n\" >> $d/open/order\n{tell}\nwhile :; do $d/sleeper 1000 & wait; done"
    )
}

/// It becomes ready when the test says so, by a file named after it.
const GATE: &str = "until [ -e $d/open/go-$n ]; do $d/sleeper 0.01; done";

fn go(instance: &Instance, name: &str) {
    std::fs::write(instance.dir.join(format!("open/go-{name}")), "").unwrap();
}

fn position(lines: &[String], line: &str) -> usize {
    lines.iter().position(|have| have == line).unwrap_or_else(|| panic!("no `{line}` in {lines:?}"))
}

#[test]
fn a_program_starts_when_what_it_requires_is_ready_however_that_is_told() {
    // It stays: of a sender that is gone when it is heard only READY=1 is believed.
    let notify = "perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_DGRAM, 0); \
                  send($s, qq(STATUS=serving well\\nREADY=1), 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})); \
                  sleep(1000)' &";
    let scripts = [
        ("by-notify", noting(GATE, notify)),
        ("by-fd", noting(GATE, "echo ready >&4")),
        ("by-pidfile", noting(GATE, "echo $$ > $d/open/pid")),
        ("by-check", noting(GATE, "")),
        ("last", noting("", "")),
    ];
    let scripts: Vec<(&str, &str)> = scripts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    for (way, keys) in both_ways() {
        // In the file the other way round: the order comes from `requires` alone.
        let config = "[program:last]\ncommand = %(here)s/last last\nrequires = by-check\nstartsecs = 0\n\
            [program:by-check]\ncommand = %(here)s/by-check by-check\nrequires = by-pidfile\n\
            ready_check = grep -q 'serves by-check' %(here)s/open/order\nready_check_interval = 20ms\n\
            [program:by-pidfile]\ncommand = %(here)s/by-pidfile by-pidfile\nrequires = by-fd\nready = pidfile\n\
            pidfile = %(here)s/open/pid\n\
            [program:by-fd]\ncommand = %(here)s/by-fd by-fd\nrequires = by-notify\nready = fd:4\n\
            [program:by-notify]\ncommand = %(here)s/by-notify by-notify\ntype = notify\n";
        let mut instance = Instance::scripted(&format!("order-ready-{way}"), keys, &scripts, config);
        let chain = ["by-notify", "by-fd", "by-pidfile", "by-check", "last"];
        for pair in chain.windows(2) {
            instance.await_that(pair[0], || instance.read("open/order").contains(&format!("up {}", pair[0])));
            assert_eq!(instance.program(pair[0]).state, "starting", "{way}: it is not ready yet");
            assert_eq!(instance.program(pair[1]).state, "held", "{way}: {} waits", pair[1]);
            go(&instance, pair[0]);
            instance.await_state(pair[0], "running");
        }
        instance.await_state("last", "running");
        assert_eq!(instance.program("by-notify").status_text.as_deref(), Some("serving well"));
        instance.quit_clean();
        let lines = instance.lines("open/order");
        for pair in chain.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            assert!(position(&lines, &format!("serves {first}")) < position(&lines, &format!("up {second}")));
            assert!(
                position(&lines, &format!("down {second}")) < position(&lines, &format!("down {first}")),
                "{way}: the stop is the start backwards: {lines:?}"
            );
        }
    }
}

#[test]
fn uptime_makes_ready_and_after_only_orders() {
    let text = noting("", "");
    let config = "[program:b]\ncommand = %(here)s/p b\nafter = a\nstartsecs = 0\n\
                  [program:a]\ncommand = %(here)s/p a\nstartsecs = 300ms\n";
    let mut instance = Instance::scripted("order-after", "", &[("p", &text)], config);
    instance.await_state("b", "running");
    let (a, b) = (instance.program("a"), instance.program("b"));
    assert!(a.uptime_ms.unwrap() >= b.uptime_ms.unwrap() + 250, "{a:?} {b:?}");
    // `after` does not bind: a stops alone.
    instance.ctl_ok(&["stop", "a", "--wait"]);
    assert_eq!((instance.program("b").state, instance.program("b").pid), ("running".into(), b.pid));
    instance.quit_clean();
}

#[test]
fn priorities_order_start_and_stop() {
    let text = noting("", "");
    // One after the other in the same breath, so the lines of the start may mix; those of the stop may not.
    let config = "[program:late]\ncommand = %(here)s/p late\npriority = 30\nstartsecs = 0\n\
                  [program:early]\ncommand = %(here)s/p early\npriority = 10\nstartsecs = 0\n\
                  [program:middle]\ncommand = %(here)s/p middle\npriority = 20\nstartsecs = 0\n";
    let mut instance = Instance::scripted("order-priority", "", &[("p", &text)], config);
    instance.await_that("all serve", || instance.read("open/order").matches("serves").count() == 3);
    let pids = ["early", "middle", "late"].map(|name| instance.pid(name));
    assert!(pids[0] < pids[1] && pids[1] < pids[2] || pids[0] > pids[2], "{pids:?}");
    instance.quit_clean();
    let lines = instance.lines("open/order");
    let downs: Vec<_> = lines.iter().filter(|line| line.starts_with("down")).collect();
    assert_eq!(downs, ["down late", "down middle", "down early"]);
}

#[test]
fn a_required_program_that_is_stopped_takes_its_dependents_down_and_its_start_recovers_them() {
    let text = noting("", "");
    for (way, keys) in both_ways() {
        let config = "[program:base]\ncommand = %(here)s/p base\nstartsecs = 0\n\
                      [program:mid]\ncommand = %(here)s/p mid\nrequires = base\nstartsecs = 0\n\
                      [program:top]\ncommand = %(here)s/p top\nrequires = mid\nstartsecs = 0\n\
                      [program:other]\ncommand = %(here)s/p other\nstartsecs = 0\n";
        let mut instance =
            Instance::scripted(&format!("order-requires-{way}"), keys, &[("p", &text)], config);
        instance.await_that("all serve", || instance.read("open/order").matches("serves").count() == 4);
        let other = instance.pid("other");
        instance.ctl_ok(&["stop", "base", "--wait"]);
        assert_eq!(instance.program("base").state, "stopped");
        assert_eq!(["mid", "top"].map(|name| instance.program(name).state), ["held", "held"], "{way}");
        let lines = instance.lines("open/order");
        let downs: Vec<_> = lines.iter().filter(|line| line.starts_with("down")).collect();
        assert_eq!(downs, ["down top", "down mid", "down base"], "{way}");
        instance.ctl_ok(&["start", "base"]);
        instance.await_state("top", "running");
        assert_eq!(instance.program("mid").state, "running");
        assert_eq!(instance.pid("other"), other, "{way}: nobody else is concerned");
        instance.quit_clean();
    }
}

#[test]
fn starting_a_dependent_starts_what_it_requires() {
    let config = "[program:base]\ncommand = sleep 1000\nstartsecs = 0\nautostart = false\n\
                  [program:top]\ncommand = sleep 1000\nrequires = base\nstartsecs = 0\nautostart = false\n";
    let mut instance = Instance::start("order-pull", config);
    assert_eq!(instance.program("top").state, "stopped");
    instance.ctl_ok(&["start", "top", "--wait"]);
    assert_eq!(["base", "top"].map(|name| instance.program(name).state), ["running", "running"]);
    instance.quit_clean();
}

#[test]
fn a_program_that_is_not_ready_in_time_has_failed_and_leaves_nothing() {
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = %(here)s/p\ntype = notify\nstart_timeout = 200ms\n";
        let text = "\"${0%/*}/sleeper\" 1001 &\nexec \"${0%/*}/sleeper\" 1000";
        let mut instance = Instance::scripted(&format!("order-late-{way}"), keys, &[("p", text)], config);
        let program = instance.await_program("a", "failed twice", |a| a.failures >= 2);
        assert_eq!(program.reason.as_deref(), Some("not ready in time"));
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert!(instance.family().is_empty(), "{way}");
        instance.quit_clean();
    }
}
