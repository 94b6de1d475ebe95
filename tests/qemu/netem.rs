//! `[dido]` between three machines: three multusds in network namespaces of one guest, with lines of a chip, and between them the
//! kernel's netem(8), set by `guest/netem.c`. What netem cannot do (record, replay, forge) is tried in `tests/dido.rs`.

use super::guest::{Guest, guest_seconds};
use super::outputs::put_compiled;
use super::shipped::{await_in, equipped};

const REPEAT_MS: f64 = 500.0;
const TIMEOUT_MS: f64 = 1500.0;
/// An emulated board is slow, and its machine does much else.
const SLACK_MS: f64 = 300.0;

/// As guest/netem.c takes it: loss, delay and jitter in ms, duplicates, those that overtake; percent.
const FAIR: &str = "0 0 0 0 0";
const STORM: &str = "30 30 25 20 25";
const CUT: &str = "100 0 0 0 0";

/// Lines of the chip: what the first machine sees, what the second and the third drive.
const FLOAT: u32 = 0;
const VALVE: u32 = 1;
const HORN: u32 = 2;
const BELL: u32 = 3;

struct Machines {
    guest: Guest,
    float: String,
    /// Valve and bell; horn.
    followers: String,
    horn: String,
}

/// Three machines, a router between them, and what it does to what it delivers to each.
fn machines(name: &str) -> Machines {
    let mut guest = equipped(name);
    put_compiled(&mut guest, "lines");
    put_compiled(&mut guest, "netem");
    guest.ok("while read -r module; do insmod /modules/$module; done </modules/net");
    guest.ok("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
    for index in 0..3 {
        // The kernel names the other end veth0, which leaves at once.
        guest.ok(&format!(
            "(unshare -n sleep 1000000 >/dev/null 2>&1 & echo $! >/tmp/m{index})\n\
             pid=$(cat /tmp/m{index})\n\
             until [ $(readlink /proc/$pid/ns/net) != $(readlink /proc/self/ns/net) ] && \
                   [ $(cat /proc/$pid/comm) = sleep ]; do sleep 0.01; done\n\
             ip link add v{index} type veth && ip link set veth0 netns $pid && ip link set v{index} up &&\n\
             echo 0 >/proc/sys/net/ipv6/conf/v{index}/accept_dad &&\n\
             ip addr add 10.77.{index}.1/24 dev v{index} && ip addr add fd77:{index}::1/64 dev v{index} &&\n\
             in=\"nsenter -t $pid -n\" && $in ip link set lo up &&\n\
             $in sh -c 'echo 0 >/proc/sys/net/ipv6/conf/veth0/accept_dad' && $in ip link set veth0 up &&\n\
             $in ip addr add 10.77.{index}.2/24 dev veth0 && $in ip addr add fd77:{index}::2/64 dev veth0 &&\n\
             $in ip route add default via 10.77.{index}.1 && $in ip -6 route add default via fd77:{index}::1"
        ));
    }
    let chip = guest.sim_chip("net", 4);
    let [one, two] = ["1", "2"].map(|digit| digit.repeat(64));
    let timing = format!("repeat = {REPEAT_MS}ms\ntimeout = {TIMEOUT_MS}ms\nport = 9190\n");
    // The third is spoken to by IPv6.
    let configs = [
        format!(
            "[input:float]\ngpio = net:{FLOAT}\n[dido:hall]\n{timing}\
             peer = 10.77.1.2:9190 {one}, [fd77:2::2]:9190 {two}\nsend = float, !float as closed\n"
        ),
        format!(
            "[output:valve]\ngpio = net:{VALVE}\n[output:horn]\ngpio = net:{HORN}\n[dido:hall]\n{timing}\
             peer = 10.77.0.2:9190 {one}\noutputs = valve, horn\nreceive = valve from float, horn from float hold\n"
        ),
        format!(
            "[output:bell]\ngpio = net:{BELL}\n[dido:hall]\n{timing}\
             peer = [fd77:0::2]:9190 {two}\noutputs = bell\nreceive = bell from !closed\n"
        ),
    ];
    for (index, config) in configs.iter().enumerate() {
        let config = format!("[multusd]\nstate_dir = /tmp/state{index}\n{config}");
        guest.put_bytes(config.as_bytes(), 0o644, &format!("/etc/m{index}.cfg"));
        guest.ok(&format!(
            "(nsenter -t $(cat /tmp/m{index}) -n multusd --config /etc/m{index}.cfg --run-dir /run/m{index} \
             >/tmp/m{index}.log 2>&1 </dev/null &)"
        ));
    }
    let file = |line, which: usize, guest: &Guest| guest.sim_files(&chip, line)[which].clone();
    let float = file(FLOAT, 0, &guest);
    let followers = format!("{} {}", file(VALVE, 1, &guest), file(BELL, 1, &guest));
    let horn = file(HORN, 1, &guest);
    for index in 0..3 {
        await_in(
            &mut guest,
            &format!("multusctl --run-dir /run/m{index} values 2>/dev/null | grep -q '^dido-hall.link  *1'"),
        );
    }
    Machines { guest, float, followers, horn }
}

impl Machines {
    /// Does this, and waits until valve and bell are so; milliseconds.
    fn until(&mut self, order: &str, level: u8) -> f64 {
        let text = self.guest.ok_within(
            guest_seconds(60),
            &format!(
                "begun=$(lines until 0)\n{order}\ndone=$(lines until {level} {})\necho $((done-begun))",
                self.followers
            ),
        );
        text.parse::<f64>().expect("microseconds") / 1000.0
    }

    fn float(&self, up: u8) -> String {
        format!("echo pull-{} >{}", ["down", "up"][usize::from(up)], self.float)
    }
}

/// To all three machines.
fn weather(words: &str) -> String {
    format!("for at in /sys/class/net/v[012]/ifindex; do netem $(cat $at) {words} || exit 1; done")
}

fn median_and_most(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}

#[test]
fn through_netem_three_machines_agree_in_a_storm_and_are_safe_in_a_cut_and_right_when_it_heals() {
    let mut machines = machines("netem");
    let storm: Vec<f64> = (0..20)
        .map(|round| {
            // What nobody hears of before the weather has begun is no part of it.
            let order = format!("{}\n{}", weather(STORM), machines.float((round + 1) % 2));
            machines.until(&order, (round + 1) % 2)
        })
        .collect();
    let (median, most) = median_and_most(storm);
    println!(
        "30 % lost, 30 ± 25 ms, 20 % doubled, 25 % overtake: both right after {median:.0} ms (median of 20), {most:.0} ms at most"
    );
    let (mut safe, mut healed) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let order = format!("{}\n{}", weather(FAIR), machines.float(1));
        machines.until(&order, 1);
        safe.push(machines.until(&weather(CUT), 0));
        // What changes now is heard of nowhere, and safe it remains.
        let (down, up) = (machines.float(0), machines.float(1));
        machines.guest.ok(&format!("{down}; {up}; sleep 2"));
        assert_eq!(machines.guest.ok(&format!("cat {}", machines.followers)), "0\n0");
        assert_eq!(machines.guest.ok(&format!("cat {}", machines.horn)), "1", "it holds");
        healed.push(machines.until(&weather(FAIR), 1));
    }
    let ((safe, safe_most), (healed, healed_most)) = (median_and_most(safe), median_and_most(healed));
    println!(
        "cut: safe after {safe:.0} ms, {safe_most:.0} at most; healed: right after {healed:.0} ms, {healed_most:.0} at most"
    );
    assert!(safe_most <= TIMEOUT_MS + SLACK_MS, "{safe_most} ms");
    assert!(healed_most <= REPEAT_MS + SLACK_MS, "{healed_most} ms");
    let status = "for m in 0 1 2; do multusctl --run-dir /run/m$m status dido-hall | grep ^dido; done";
    let restarts = machines.guest.ok(&format!("({status}) | awk '{{ print $2, $5 }}'"));
    assert_eq!(restarts, ["running 0"; 3].join("\n"));
}
