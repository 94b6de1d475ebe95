//! QEMU's own words: the lines of its monitor (QMP), as far as the tests read them.
#![allow(clippy::question_mark, reason = "in what DeJson derives")]

use nanoserde::DeJson;

/// A line QEMU sent: an event, or the reply to a command.
#[derive(Debug, DeJson)]
pub struct Line {
    pub event: Option<String>,
    pub data: Option<Data>,
    pub error: Option<Failure>,
}

/// What events say more.
#[derive(Clone, Debug, Default, DeJson)]
pub struct Data {
    pub action: Option<String>,
    pub reason: Option<String>,
    pub status: Option<String>,
}

#[derive(Debug, DeJson)]
pub struct Failure {
    pub desc: String,
}

/// Something that happened to the machine.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: String,
    pub data: Data,
}

/// The reply to `qom-list`.
#[derive(DeJson)]
pub struct Objects {
    #[nserde(rename = "return")]
    pub list: Vec<Object>,
}

#[derive(DeJson)]
pub struct Object {
    pub name: String,
    #[nserde(rename = "type")]
    pub kind: String,
}

/// Text as a JSON string.
pub fn quoted(text: &str) -> String {
    nanoserde::SerJson::serialize_json(text)
}

#[test]
fn lines_of_the_monitor_are_read_and_what_nobody_asked_for_is_skipped() {
    let line = |text| Line::deserialize_json(text).expect("a line of QMP");
    let greeting =
        line(r#"{"QMP": {"version": {"qemu": {"micro": 2}, "package": "x"}, "capabilities": ["oob"]}}"#);
    assert!(greeting.event.is_none() && greeting.error.is_none());
    let bite = line(
        r#"{"timestamp": {"seconds": 1, "microseconds": -2}, "event": "WATCHDOG", "data": {"action": "reset"}}"#,
    );
    assert_eq!(bite.event.as_deref(), Some("WATCHDOG"));
    assert_eq!(bite.data.and_then(|data| data.action).as_deref(), Some("reset"));
    let other =
        line(r#"{"event": "X", "data": {"guest": true, "reason": "guest-reset", "n": [1, {"a": null}]}}"#);
    assert_eq!(other.data.and_then(|data| data.reason).as_deref(), Some("guest-reset"));
    assert!(line(r#"{"return": {}}"#).error.is_none());
    assert_eq!(
        line(r#"{"error": {"class": "X", "desc": "no"}}"#).error.map(|error| error.desc).as_deref(),
        Some("no")
    );
    let objects = Objects::deserialize_json(r#"{"return": [{"name": "a", "type": "child<pl061>"}]}"#);
    assert_eq!(objects.expect("objects").list[0].kind, "child<pl061>");
}
