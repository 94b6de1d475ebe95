//! "Did you mean": the nearest of the words that would have been right, as the configuration finds it.

use crate::config::nearest;

/// `; did you mean NAME?`, or nothing when no name is near.
pub fn suggestion<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> String {
    match nearest(given, names) {
        Some(name) => ["; did you mean ", name, "?"].concat(),
        None => String::new(),
    }
}
