//! Users and groups from /etc/passwd and /etc/group, read as text (passwd(5), group(5)). Not by
//! the C library: a static musl asks a name-service socket besides the files, and that can hang.

use super::process::Identity;

/// The two files' text.
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads both; a missing one is empty (numbers still work).
    pub fn read() -> Self {
        let text = |path: &str| {
            super::file::read(path.as_ref())
                .map(|b| String::from_utf8_lossy(&b).into_owned())
                .unwrap_or_default()
        };
        Accounts { passwd: text("/etc/passwd"), group: text("/etc/group") }
    }

    /// Accounts from text.
    pub fn from_text(passwd: &str, group: &str) -> Self {
        Accounts { passwd: passwd.into(), group: group.into() }
    }

    /// The number of a group given by name or number.
    pub fn group(&self, name: &str) -> Option<u32> {
        let by_name = self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
        });
        by_name.or_else(|| name.parse().ok())
    }

    /// Everything about a user given by name or number, with another main group where one is
    /// given. `Err` names what does not exist.
    pub fn identity(&self, user: &str, group: Option<&str>) -> Result<Identity, String> {
        let entry = self.passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let (name, uid, gid) = (fields.first()?, fields.get(2)?, fields.get(3)?);
            (*name == user || *uid == user)
                .then(|| Some((name.to_string(), uid.parse().ok()?, gid.parse().ok()?)))?
        });
        let other = match group {
            Some(group) => {
                Some(self.group(group).ok_or_else(|| format!("no group `{group}` in /etc/group"))?)
            }
            None => None,
        };
        match entry {
            Some((name, user, gid)) => {
                let group = other.unwrap_or(gid);
                Ok(Identity { user, group, groups: self.groups_of(&name, group) })
            }
            None => match (user.parse(), other) {
                (Ok(user), Some(group)) => Ok(Identity { user, group, groups: vec![group] }),
                (Ok(user), None) => Ok(Identity { user, group: user, groups: vec![user] }),
                _ => Err(format!("no user `{user}` in /etc/passwd")),
            },
        }
    }

    fn groups_of(&self, name: &str, main: u32) -> Vec<u32> {
        let mut groups = vec![main];
        for line in self.group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let (Some(gid), Some(members)) = (fields.get(2).and_then(|gid| gid.parse().ok()), fields.get(3))
            else {
                continue;
            };
            if members.split(',').any(|member| member == name) && !groups.contains(&gid) {
                groups.push(gid);
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::from_text(
            "root:x:0:0:root:/root:/bin/sh\npump:x:1001:1001::/:/bin/false\n",
            "root:x:0:\npump:x:1001:\ngpio:x:997:pump,other\ndialout:x:20:pump\n",
        )
    }

    #[test]
    fn a_user_has_its_supplementary_groups() {
        let identity = accounts().identity("pump", None).unwrap();
        assert_eq!(identity, Identity { user: 1001, group: 1001, groups: vec![1001, 997, 20] });
    }

    #[test]
    fn a_number_without_an_entry_is_a_user_of_its_own_group() {
        assert_eq!(accounts().identity("4000", None).unwrap().group, 4000);
        assert_eq!(accounts().identity("1001", Some("gpio")).unwrap().group, 997);
    }

    #[test]
    fn what_does_not_exist_is_named() {
        assert_eq!(accounts().identity("nobody", None).unwrap_err(), "no user `nobody` in /etc/passwd");
        assert_eq!(accounts().identity("pump", Some("x")).unwrap_err(), "no group `x` in /etc/group");
    }
}
