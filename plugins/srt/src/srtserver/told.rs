// SPDX-License-Identifier: MPL-2.0

//! What the application is told of callers who are turned away: SRT gives them a number, which encoders show as an error of
//! input and output, so that whoever looks for the reason looks here.

use std::sync::Mutex;

use super::name;
use crate::libsrt::Reject;
use crate::lock;

/// The kinds that were told of: strangers may call without end.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<Reject>>);

impl Told {
    /// A warning for the first one of a kind.
    pub(super) fn first(&self, why: Reject, id: &str, from: &str) -> Option<String> {
        let what = sentence(why)?;
        let mut told = lock(&self.0);
        if told.contains(&why) {
            return None;
        }
        told.push(why);
        let shown = name::shown(id);
        Some(format!(
            "The SRT caller {from} with the stream id {shown:?} is refused: {what}. Others that are refused for this are in the log \
             alone (GST_DEBUG=srtserver:4)."
        ))
    }
}

/// What is wrong, and what to do. Nobody is to be told of one that came as the element stopped.
fn sentence(why: Reject) -> Option<&'static str> {
    let what = match why {
        Reject::BadRequest => {
            "it names no stream that there can be. It is NAME, #!::r=NAME,m=publish or publish:NAME, where NAME has parts of 1 to 64 \
             characters from A-Z a-z 0-9 . _ - joined by '/'; the property stream names that of callers who name none"
        }
        Reject::BadMode => {
            "it asks to play, and srtserver only takes what encoders send: say m=publish, or the name alone"
        }
        Reject::Unauthorized => {
            "it shows nothing by which it may publish. A token or key is shown as NAME?token=TOKEN, a password as \
             #!::r=NAME,u=USER,s=PASSWORD (docs/access.md)"
        }
        Reject::Forbidden => {
            "it may not publish this stream. The property access, or passphrases, says who may"
        }
        Reject::Overload => {
            "too many call, or what it shows can't be looked at now. It may call again in a few seconds"
        }
        Reject::Conflict => "another caller sends this stream. Give each encoder a name of its own",
        Reject::Failed => return None,
    };
    Some(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_and_no_secret_at_all() {
        let told = Told::default();
        for (why, id, shown) in [
            (Reject::BadRequest, "cam 1?token=secret", "\"cam 1…\""),
            (Reject::BadMode, "read:cam1:ann:secret", "\"cam1…\""),
            (Reject::Unauthorized, "#!::s=secret,r=cam1", "\"cam1\""),
            (Reject::Forbidden, "cam1?pass=secret", "\"cam1…\""),
            (Reject::Overload, "", "\"\""),
            (Reject::Conflict, "cam1", "\"cam1\""),
        ] {
            let warning = told.first(why, id, "192.0.2.1:9").unwrap();
            let expected = format!("192.0.2.1:9 with the stream id {shown} is refused: ");
            assert!(warning.contains(&expected), "{warning}");
            assert!(!warning.contains("secret"), "{warning}");
            for id in [id, "another"] {
                assert_eq!(told.first(why, id, "192.0.2.2:9"), None, "{why:?}");
            }
        }
        assert_eq!(told.first(Reject::Failed, "cam1", "192.0.2.1:9"), None);
    }
}
