// SPDX-License-Identifier: MPL-2.0

//! What must hold of any answer and refusal, read by a reader of the tests' own.

use std::collections::HashSet;

use crate::Kind;

/// An m-line with what the tests look at.
#[derive(Debug, Default)]
struct Section<'a> {
    kind: &'a str,
    port: &'a str,
    protocol: &'a str,
    formats: Vec<&'a str>,
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Section<'a> {
    fn all(&self, name: &str) -> Vec<&'a str> {
        let named = self.attributes.iter().filter(|(n, _)| *n == name);
        named.map(|(_, value)| *value).collect()
    }

    fn one(&self, name: &str) -> Option<&'a str> {
        self.all(name).first().copied()
    }

    fn direction(&self) -> Option<&'a str> {
        let all = ["sendrecv", "sendonly", "recvonly", "inactive"];
        let mut found = self.attributes.iter().map(|(name, _)| *name);
        found.find(|name| all.contains(name))
    }

    fn is_given_up(&self) -> bool {
        self.port == "0" && self.one("bundle-only").is_none()
    }
}

/// The session's attributes, and the m-lines.
fn sections(sdp: &str) -> (Section<'_>, Vec<Section<'_>>) {
    let mut session = Section::default();
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in sdp
        .trim_start_matches('\u{feff}')
        .split(['\r', '\n'])
        .map(str::trim)
    {
        if let Some(value) = line.strip_prefix("m=") {
            let mut words = value.split_ascii_whitespace();
            let mut next = || words.next().unwrap_or_default();
            let (kind, port, protocol) = (next(), next(), next());
            sections.push(Section {
                kind,
                port: port.split('/').next().unwrap_or_default(),
                protocol,
                formats: words.collect(),
                attributes: Vec::new(),
            });
        } else if let Some(attribute) = line.strip_prefix("a=") {
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            let section = sections.last_mut().unwrap_or(&mut session);
            section.attributes.push((name.trim(), value.trim()));
        }
    }
    (session, sections)
}

/// Checks an answer against its offer.
pub(crate) fn check(kind: Kind, offer: &str, answer: &str) {
    let (offered_session, offered) = sections(offer);
    let (session, answered) = sections(answer);
    assert_eq!(
        offered.len(),
        answered.len(),
        "as many m-lines\n{offer}\n{answer}"
    );
    assert!(answer.starts_with("v=0\r\no=- ") && answer.contains("\r\ns=-\r\nt=0 0\r\n"));
    assert!(
        answer.ends_with("\r\n") && !answer.contains("\r\n\r\n"),
        "{answer}"
    );
    let mut mids = HashSet::new();
    for (o, a) in offered.iter().zip(&answered) {
        assert_eq!((o.kind, o.protocol), (a.kind, a.protocol), "{answer}");
        let (mid_offered, mid) = (
            o.all("mid").into_iter().find(|m| !m.is_empty()),
            a.one("mid"),
        );
        assert_eq!(mid_offered, mid, "the same name\n{offer}\n{answer}");
        assert!(!a.formats.is_empty(), "{answer}");
        assert!(a.port == "0" || a.port == "9");
        if o.is_given_up() {
            assert_eq!(a.port, "0", "what is given up stays so\n{answer}");
        }
        if a.port == "9" {
            check_taken(kind, o, a, answer);
            mids.extend(mid);
        }
    }
    let known = ["actpass", "active", "passive", "holdconn"];
    let setup = |o: &Section<'_>| -> Option<String> {
        let said = o.all("setup").into_iter().map(str::to_ascii_lowercase);
        said.into_iter().find(|setup| known.contains(&&**setup))
    };
    let setups: HashSet<_> = offered.iter().map(setup).collect();
    if setups.len() == 1 && offered_session.one("setup").is_none() {
        let begins = setups.contains(&Some("passive".into()));
        let setup = if begins { "active" } else { "passive" };
        let mut taken = answered.iter().filter(|a| a.port == "9");
        assert!(taken.all(|a| a.one("setup") == Some(setup)), "{answer}");
    }
    check_group(&offered_session, &session, &mids, answer);
    check_stream(kind, &answered, answer);
}

/// A payload type, which may be written with zeros before it.
fn number(pt: &str) -> Option<u8> {
    pt.parse().ok()
}

/// An m-line that was taken.
fn check_taken(kind: Kind, o: &Section<'_>, a: &Section<'_>, answer: &str) {
    let wanted = match kind {
        Kind::Whip => ["recvonly", "inactive"],
        Kind::Whep => ["sendonly", "inactive"],
    };
    let direction = a.direction().expect("a direction");
    assert!(wanted.contains(&direction), "{direction}\n{answer}");
    let mut order = a.formats.iter().map(|pt| {
        o.formats
            .iter()
            .position(|offered| number(offered) == number(pt))
    });
    assert!(
        order.all(|place| place.is_some()),
        "payload types of the offer\n{answer}"
    );
    let unique: HashSet<_> = a.formats.iter().collect();
    assert_eq!(unique.len(), a.formats.len(), "{answer}");
    let said = |s: &Section<'_>, name: &str| -> Vec<String> {
        let all = s.all(name);
        all.iter()
            .map(|v| {
                // 050 is 50.
                let number = v.find(|c: char| c != '0').unwrap_or(0);
                let is_zero = !v[number..].starts_with(|c: char| c.is_ascii_digit());
                let v = if is_zero { v } else { &v[number..] };
                v.split_ascii_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .to_ascii_lowercase()
            })
            .collect()
    };
    let (maps, offered_maps) = (said(a, "rtpmap"), said(o, "rtpmap"));
    assert!(
        maps.iter().all(|map| offered_maps.contains(map)),
        "{answer}"
    );
    assert_eq!(
        maps.len(),
        a.formats.len(),
        "each is told what it is\n{answer}"
    );
    let offered_feedback = said(o, "rtcp-fb");
    for feedback in said(a, "rtcp-fb") {
        let (_, words) = feedback.split_once(' ').expect("two words");
        let of_all = format!("* {words}");
        assert!(
            // Words may follow that say more of it.
            offered_feedback
                .iter()
                .any(|o| o.starts_with(&feedback) || o.starts_with(&of_all)),
            "{feedback}\n{answer}"
        );
    }
    let credentials = a
        .one("ice-ufrag")
        .zip(a.one("ice-pwd"))
        .expect("credentials");
    assert!(
        credentials.0.len() >= 4 && credentials.1.len() >= 22,
        "{answer}"
    );
    assert!(
        a.one("fingerprint")
            .is_some_and(|f| f.starts_with("sha-256 "))
            && a.one("rtcp-mux").is_some()
    );
    check_layers(o, a, answer);
    for map in a.all("extmap") {
        let (id, uri) = map.split_once(' ').expect("two words");
        let id: u32 = id
            .split('/')
            .next()
            .and_then(|id| id.parse().ok())
            .expect("a number");
        assert!((1..=254).contains(&id), "{answer}");
        assert!(
            uri.starts_with("urn:") || uri.starts_with("http:"),
            "{answer}"
        );
    }
}

/// Layers that send nothing yet are not made to (RFC 8853).
fn check_layers(o: &Section<'_>, a: &Section<'_>, answer: &str) {
    let Some(received) = a.one("simulcast").and_then(|v| v.strip_prefix("recv ")) else {
        return;
    };
    let offered = o.one("simulcast").unwrap_or_default();
    let alternatives = offered.split([' ', ';']).filter(|w| !w.is_empty());
    let firsts: Vec<_> = alternatives.filter_map(|w| w.split(',').next()).collect();
    for name in received.split(';') {
        let given = |first: &&str| first.trim_start_matches("rid=") == name;
        assert!(firsts.iter().any(given), "{name} of {offered}\n{answer}");
    }
}

/// The group has what is taken, and nothing else, and only where there was one.
fn check_group(offered: &Section<'_>, session: &Section<'_>, taken: &HashSet<&str>, answer: &str) {
    let groups = session.all("group");
    assert!(groups.len() <= 1, "{answer}");
    for mid in groups.iter().flat_map(|g| g.split(' ')).skip(1) {
        assert!(taken.contains(mid), "{mid} is in the group\n{answer}");
    }
    let had_one = offered.all("group").iter().any(|g| g.starts_with("BUNDLE"));
    assert!(had_one || groups.is_empty(), "{answer}");
}

/// One stream with one name, so that sound and pictures play in sync; SSRCs of their own.
fn check_stream(kind: Kind, answered: &[Section<'_>], answer: &str) {
    let mut streams = HashSet::new();
    let mut names = HashSet::new();
    let mut sources = Vec::new();
    for section in answered {
        let sends = section.port == "9" && section.direction() == Some("sendonly");
        assert_eq!(section.one("msid").is_some(), sends, "{answer}");
        streams.extend(section.one("msid").and_then(|m| m.split(' ').next()));
        for source in section.all("ssrc") {
            let (ssrc, attribute) = source.split_once(' ').expect("two words");
            names.extend(attribute.strip_prefix("cname:"));
            if attribute.starts_with("cname:") {
                sources.push(ssrc);
            }
        }
    }
    let unique: HashSet<_> = sources.iter().collect();
    assert_eq!(unique.len(), sources.len(), "{answer}");
    let expected = usize::from(kind == Kind::Whep && !sources.is_empty());
    assert_eq!(
        (streams.len(), names.len()),
        (expected, expected),
        "{answer}"
    );
}

/// A refusal is one sentence, not too long, and says nothing of memory.
pub(crate) fn check_sentence(why: &str) {
    assert!(!why.is_empty() && why.len() < 700, "{why}");
    assert!(!why.chars().any(char::is_control), "{why:?}");
    // What is quoted are the peer's own words.
    let ours: String = why.replace("\\\"", "").split('"').step_by(2).collect();
    let is_address = |rest: &str| rest.bytes().take_while(u8::is_ascii_hexdigit).count() >= 6;
    assert!(!ours.split("0x").skip(1).any(is_address), "{why}");
    for part in ["Pointer", "panick", "unwrap"] {
        assert!(!ours.contains(part), "{why}");
    }
}

/// Whether every m-line is taken that carries something, and can be taken: audio and video, one of each.
pub(crate) fn takes_all(kind: Kind, offer: &str, answer: &str) -> bool {
    let (session, offered) = sections(offer);
    let (_, answered) = sections(answer);
    let carries = |s: &Section<'_>| {
        let direction = s.direction().or(session.direction()).unwrap_or("sendrecv");
        let unwanted = match kind {
            Kind::Whip => "recvonly",
            Kind::Whep => "sendonly",
        };
        !s.is_given_up() && direction != "inactive" && direction != unwanted
    };
    ["audio", "video"].iter().all(|media| {
        let all = offered.iter().zip(&answered);
        let mut wanted = all.filter(|(o, _)| o.kind == *media && carries(o));
        let first = wanted.next();
        first.is_none_or(|(_, a)| a.port == "9" && a.direction() != Some("inactive"))
    })
}
