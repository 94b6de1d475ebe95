//! Sections of dido: what they mean, and every mistake with its key.

use super::super::section::{Fault, Follows, From, Plan, Remote, Sent};
use crate::config::{Driven, Setting, Settings};
use crate::time::Millis;

const DIGITS: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeF";

fn settings(outputs: &[&str], keys: &[(&str, &str)]) -> Settings {
    let driven = |name: &&str| Driven { name: (*name).into(), ..Driven::default() };
    let setting = |(name, value): &(&str, &str)| Setting { name: (*name).into(), value: (*value).into() };
    Settings {
        outputs: outputs.iter().map(driven).collect(),
        settings: keys.iter().map(setting).collect(),
        ..Settings::default()
    }
}

fn read(outputs: &[&str], keys: &[(&str, &str)]) -> Result<Plan, Fault> {
    Plan::read(&settings(outputs, keys), super::super::KEYS)
}

const PEER: (&str, &str) = ("peer", "192.168.0.100:9190 hall-2");
const PORT: (&str, &str) = ("port", "9190");

#[test]
fn a_section_says_who_is_spoken_to_and_what_follows_what() {
    let peers = format!("192.168.0.100:9190, [fd00::2]:9191 /k/hall-3, 10.0.0.1:1 {DIGITS}");
    let keys = [
        PORT,
        ("peer", peers.as_str()),
        ("key", "hall-2"),
        ("send", "float-switch, !gate as gate-closed,\nvalue:sensors.full as full"),
        ("receive", "valve from !x of hall-2, horn from y of fd00::2 hold, bell of 10.0.0.1 safe"),
        ("on_loss", "hold"),
    ];
    let plan = read(&["horn", "valve", "bell"], &keys).unwrap();
    let peers: Vec<_> =
        plan.peers.iter().map(|peer| (peer.port, peer.key.as_str(), peer.name().to_string())).collect();
    assert_eq!(
        peers,
        [
            (9190, "hall-2", "hall-2".to_string()),
            (9191, "/k/hall-3", "/k/hall-3".into()),
            (1, DIGITS, "10.0.0.1:1".into())
        ]
    );
    let sent = |from, source: &str, inverted, name: &str| Sent {
        from,
        source: source.into(),
        inverted,
        name: name.into(),
    };
    assert_eq!(
        plan.sent,
        [
            sent(From::Line, "float-switch", false, "float-switch"),
            sent(From::Line, "gate", true, "gate-closed"),
            sent(From::Value, "sensors.full", false, "full")
        ]
    );
    let follows = |output, name: &str, inverted, peer, holds| Follows {
        output,
        name: name.into(),
        inverted,
        peer,
        holds,
    };
    assert_eq!(
        plan.follows,
        [
            follows(1, "x", true, 0, true),
            follows(0, "y", false, 1, true),
            follows(2, "bell", false, 2, false)
        ]
    );
    assert_eq!((plan.timeout, plan.repeat), (Millis(3000), Millis(1000)));
}

#[test]
fn outputs_follow_what_is_called_as_they_are_and_of_modbus_one_after_the_other() {
    let plan = read(&["valve"], &[PORT, PEER]).unwrap();
    assert_eq!((plan.follows[0].name.as_str(), plan.follows[0].holds), ("valve", false));
    let source = ("source", "modbus://[fd00::9]/17/input/100");
    let plan = read(&["a", "b", "c"], &[source, ("receive", "c from !105 hold")]).unwrap();
    let name = source.1.to_string();
    let expected =
        Remote { name, address: "fd00::9".parse().unwrap(), port: 502, unit: 17, coils: false, start: 100 };
    assert_eq!(plan.source, Some(expected));
    let places: Vec<_> = plan.follows.iter().map(|follows| (follows.output, plan.place(follows))).collect();
    assert_eq!((places, plan.bits()), (vec![(2, 5), (0, 0), (1, 1)], 6));
}

#[test]
fn every_mistake_is_told_with_its_key_and_no_key_is_said() {
    let two = ("peer", "10.0.0.1:1 a, 10.0.0.2:2 b");
    let long: String = (0..65).map(|number| format!("a{number},")).collect();
    let wide: String = (0..30).map(|number| format!("{}{number},", "a".repeat(40))).collect();
    let twice = format!("10.0.0.1:1 {DIGITS}, 10.0.0.2:1 {DIGITS}");
    let short = format!("10.0.0.1:1 {DIGITS}0");
    let swapped = format!("{DIGITS} 10.0.0.1:1");
    type Wrong<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)]);
    let wrong: &[Wrong] = &[
        ("peer", &["a"], &[]),
        ("peer", &["a"], &[("peer", "hall-2.local:9190 k"), PORT]),
        ("peer", &["a"], &[("peer", "192.168.0.100 k"), PORT]),
        ("peer", &["a"], &[("peer", "192.168.0.100:0 k"), PORT]),
        ("peer", &["a"], &[("peer", "fd00::2:9190 k"), PORT]),
        ("peer", &["a"], &[("peer", "10.0.0.1:1"), PORT]),
        ("peer", &["a"], &[("peer", "10.0.0.1:1 a b"), PORT]),
        ("peer", &["a"], &[("peer", "10.0.0.1:1 ../a"), PORT]),
        ("peer", &["a"], &[("peer", &twice), PORT]),
        ("peer", &["a"], &[("peer", &short), PORT]),
        ("key", &["a"], &[("peer", "10.0.0.1:1"), ("key", &short), PORT]),
        ("port", &["a"], &[PEER]),
        ("send", &[], &[PEER, PORT]),
        ("send", &[], &[PEER, PORT, ("send", "a as")]),
        ("send", &[], &[PEER, PORT, ("send", "!")]),
        ("send", &[], &[PEER, PORT, ("send", "a, b as a")]),
        ("send", &[], &[PEER, PORT, ("send", &long)]),
        ("send", &[], &[PEER, PORT, ("send", &wide)]),
        ("receive", &["a"], &[PEER, PORT, ("receive", "b from x")]),
        ("receive", &["a"], &[PEER, PORT, ("receive", "a from x, a from y")]),
        ("receive", &["a"], &[PEER, PORT, ("receive", "a from")]),
        ("receive", &["a"], &[PEER, PORT, ("receive", "a of hall-3")]),
        ("receive", &["a"], &[PEER, PORT, ("receive", "a from x forever")]),
        ("receive", &["a"], &[two, PORT, ("receive", "a from x")]),
        ("outputs", &["a"], &[two, PORT]),
        ("timeout", &["a"], &[PEER, PORT, ("timeout", "1999ms")]),
        ("target", &["a"], &[("target", "modbus://10.0.0.1/1/coil/0"), PEER, PORT]),
        ("target", &[], &[("target", "10.0.0.1/1/coil/0"), ("send", "a")]),
        ("target", &[], &[("target", "modbus://10.0.0.1/1/input/0"), ("send", "a")]),
        ("target", &[], &[("target", "modbus://10.0.0.1/256/coil/0"), ("send", "a")]),
        ("target", &[], &[("target", "modbus://plc/1/coil/0"), ("send", "a")]),
        ("target", &[], &[("target", "modbus://10.0.0.1/1/coil/65535"), ("send", "a, b")]),
        ("source", &["a"], &[("source", "modbus://10.0.0.1/1/input")]),
        ("source", &["a"], &[("source", "modbus://10.0.0.1/1/input/0, modbus://10.0.0.1/1/input/9")]),
        ("receive", &["a"], &[("source", "modbus://10.0.0.1/1/input/10"), ("receive", "a from 9")]),
        ("receive", &["a"], &[("source", "modbus://10.0.0.1/1/input/10"), ("receive", "a from 2010")]),
    ];
    for (key, outputs, keys) in wrong {
        let Err((told, why)) = read(outputs, keys) else { panic!("{keys:?} is accepted") };
        assert_eq!(told, *key, "{keys:?}: {why}");
        assert!(why.len() > 20 && !why.contains(&DIGITS[..20]), "{why}");
    }
    // Digits in the wrong place.
    let (_, why) = read(&["a"], &[("peer", &swapped), PORT]).unwrap_err();
    assert!(!why.contains(&DIGITS[..20]), "{why}");
}
