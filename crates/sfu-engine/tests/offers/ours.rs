// SPDX-License-Identifier: MPL-2.0

//! Our own offers to peers that are sent tracks, and what must come of answers: m-lines are only added, a free one is used again,
//! and an answer that is refused changes nothing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sfu_engine::TrackKind::{self, Audio, Video};
use sfu_engine::transport::negotiate::{AnswerTaken, Offers};

use crate::{IDENTITY, answer};

fn offers() -> Offers {
    let local = ["192.0.2.1:8189".parse().unwrap()];
    Offers::new(&IDENTITY, &local, None, None).unwrap()
}

fn add(offers: &mut Offers, kind: TrackKind, n: usize) -> usize {
    offers.add(kind, &format!("PA_{n} TR_{n}{kind:?}")).unwrap()
}

/// What a peer answers that takes all, with these ICE credentials and certificate.
fn answered(offer: &str, ufrag: &str, certificate: &str) -> String {
    let fingerprint = vec![certificate; 32].join(":");
    let is_ours = |line: &&str| {
        let ours = ["a=ssrc", "a=msid", "a=candidate", "a=end-of", "a=ice-lite"];
        !ours.iter().any(|start| line.starts_with(start))
    };
    let line = |line: &str| {
        let (name, _) = line.split_once(':').unwrap_or((line, ""));
        match name {
            "a=sendonly" => "a=recvonly".into(),
            "a=setup" => "a=setup:active".into(),
            "a=ice-ufrag" => format!("a=ice-ufrag:{ufrag}"),
            "a=ice-pwd" => "a=ice-pwd:0123456789abcdef0123456789".into(),
            "a=fingerprint" => format!("a=fingerprint:sha-256 {fingerprint}"),
            _ => line.to_owned(),
        }
    };
    let lines = offer.lines().filter(is_ours).map(line);
    lines.map(|l| l + "\r\n").collect()
}

fn taken(offers: &mut Offers, answer: &str) -> Result<AnswerTaken, String> {
    let taken = offers.answered(answer, Instant::now());
    taken.map_err(|e| e.to_string())
}

fn all<'a>(sdp: &'a str, key: &str) -> Vec<&'a str> {
    sdp.lines().filter_map(|l| l.strip_prefix(key)).collect()
}

/// Of each m-line its kind, name and direction.
fn lines_of(offer: &str) -> Vec<(&str, &str, &str)> {
    let sections = offer.split("\r\nm=").skip(1);
    let lines = sections.map(|section| {
        let kind = section.split(' ').next().unwrap();
        let mid = section.lines().find_map(|l| l.strip_prefix("a=mid:"));
        let is_direction = |l: &&str| matches!(*l, "a=sendonly" | "a=inactive");
        let direction = section.lines().find(is_direction).unwrap();
        (kind, mid.unwrap(), &direction[2..])
    });
    lines.collect()
}

#[test]
fn m_lines_are_added_and_free_ones_used_again() {
    let mut offers = offers();
    assert_eq!(
        [Video, Audio, Video].map(|k| add(&mut offers, k, 0)),
        [0, 1, 2]
    );
    let first = offers.offer().unwrap();
    let expected = [
        ("video", "0", "sendonly"),
        ("audio", "1", "sendonly"),
        ("video", "2", "sendonly"),
    ];
    assert_eq!(lines_of(&first), expected);
    assert_eq!(all(&first, "a=group:BUNDLE "), ["0 1 2"]);
    assert!(all(&first, "a=setup:").iter().all(|s| *s == "actpass"));
    assert_eq!(
        all(&first, "a=msid:"),
        ["PA_0 TR_0Video", "PA_0 TR_0Audio", "PA_0 TR_0Video"]
    );
    // All sources have one name, and no two the same number.
    let sources: HashSet<_> = all(&first, "a=ssrc:").into_iter().collect();
    let names = sources.iter().filter_map(|s| s.split_once(" cname:"));
    let (numbers, names): (HashSet<_>, HashSet<_>) = names.unzip();
    assert_eq!((numbers.len(), names.len()), (5, 1));
    let begun = taken(&mut offers, &answered(&first, "abcd", "AB")).unwrap();
    assert!(matches!(begun, AnswerTaken::Begun(_)));
    assert_eq!(
        [0, 1, 2, 3].map(|n| offers.place(n)),
        [Some(0), Some(1), Some(2), None]
    );

    offers.remove(0);
    let second = offers.offer().unwrap();
    assert_eq!(lines_of(&second)[0], ("video", "0", "inactive"));
    assert_eq!(all(&second, "a=msid:").len(), 2);
    taken(&mut offers, &answered(&second, "abcd", "AB")).unwrap();

    assert_eq!(add(&mut offers, Audio, 1), 3, "none is free");
    assert_eq!(add(&mut offers, Video, 1), 0);
    let third = offers.offer().unwrap();
    assert_eq!(all(&third, "a=msid:")[0], "PA_1 TR_1Video");
    // Chromium shows nothing of an m-line that was inactive and has the same SSRC again.
    let ssrcs = |offer: &str| -> HashSet<String> {
        let lines = all(offer, "a=ssrc:").into_iter();
        let numbers = lines.filter_map(|line| Some(line.split_once(' ')?.0.to_owned()));
        numbers.collect()
    };
    let of_line = |offer: &str, mid: &str| {
        let mut sections = offer.split("\r\nm=");
        let section = sections.find(|s| s.contains(&format!("a=mid:{mid}\r\n")));
        ssrcs(&format!("\r\n{}\r\n", section.unwrap()))
    };
    assert!(of_line(&third, "0").is_disjoint(&of_line(&first, "0")));
    assert_eq!(of_line(&third, "1"), of_line(&first, "1"));
    assert_eq!(of_line(&third, "2"), of_line(&first, "2"));
    for key in ["a=ice-ufrag:", "a=fingerprint:", "a=candidate:"] {
        let known = all(&first, key);
        assert!(all(&third, key).iter().all(|v| known.contains(v)), "{key}");
    }
    let versions = [&first, &second, &third].map(|o| all(o, "o=")[0].split(' ').nth(2).unwrap());
    assert_eq!(versions, ["1", "2", "3"]);
    let changed = taken(&mut offers, &answered(&third, "abcd", "AB")).unwrap();
    assert!(matches!(
        changed,
        AnswerTaken::Changed { restart: None, .. }
    ));
    assert_eq!(offers.place(3), Some(3));
}

/// JSEP, section 5.10: a peer tells its page of a track where an m-line begins to send, so not where one takes another's place.
#[test]
fn an_m_line_is_offered_without_its_track_before_it_has_another_one() {
    let mut offers = offers();
    assert_eq!(add(&mut offers, Video, 0), 0);
    // Nobody was told of it yet.
    offers.remove(0);
    assert_eq!(add(&mut offers, Video, 1), 0);
    let first = offers.offer().unwrap();
    taken(&mut offers, &answered(&first, "abcd", "AB")).unwrap();
    offers.remove(0);
    assert_eq!(add(&mut offers, Video, 2), 1);
    let second = offers.offer().unwrap();
    assert_eq!(lines_of(&second)[0], ("video", "0", "inactive"));
    taken(&mut offers, &answered(&second, "abcd", "AB")).unwrap();
    assert_eq!(add(&mut offers, Video, 3), 0);
}

#[test]
fn an_m_line_that_is_rejected_at_first_has_its_place_when_it_is_taken() {
    let mut offers = offers();
    for kind in [Video, Audio, Audio] {
        add(&mut offers, kind, 0);
    }
    let first = offers.offer().unwrap();
    let answer = answered(&first, "abcd", "AB");
    let without = answer.replacen("m=video 9", "m=video 0", 1);
    taken(&mut offers, &without).unwrap();
    assert_eq!([0, 1, 2].map(|n| offers.place(n)), [None, Some(0), Some(1)]);
    let second = offers.offer().unwrap();
    taken(&mut offers, &answered(&second, "abcd", "AB")).unwrap();
    assert_eq!(
        [0, 1, 2].map(|n| offers.place(n)),
        [Some(2), Some(0), Some(1)]
    );
}

#[test]
fn wrong_answers_are_refused_with_a_sentence_and_change_nothing() {
    let mut offers = offers();
    for kind in [Video, Audio, Audio] {
        add(&mut offers, kind, 0);
    }
    let first = offers.offer().unwrap();
    let good = answered(&first, "abcd", "AB");
    let last = good.rfind("m=audio").unwrap();
    let none = good
        .replace("m=video 9", "m=video 0")
        .replace("m=audio 9", "m=audio 0");
    for (sentence, wrong) in [
        ("2 m-lines", good[..last].to_owned()),
        (
            "4 m-lines",
            format!("{good}{}", good[last..].replace("mid:2", "mid:3")),
        ),
        ("was offered", good.replace("a=mid:2", "a=mid:7")),
        ("was offered", good.replacen("m=video", "m=audio", 1)),
        ("takes none", none),
        ("no a=ice-ufrag", good.replace("a=ice-ufrag", "a=x")),
        ("no m-line", String::new()),
    ] {
        let why = taken(&mut offers, &wrong).map(|_| ()).unwrap_err();
        answer::check_sentence(&why);
        assert!(why.contains(sentence), "{sentence}: {why}");
        assert_eq!(offers.place(0), None);
    }
    assert!(matches!(
        taken(&mut offers, &good),
        Ok(AnswerTaken::Begun(_))
    ));
    offers.offer().unwrap();
    for (sentence, ufrag, certificate) in [
        ("certificate", "abcd", "CD"),
        ("begins ICE anew", "efgh", "AB"),
    ] {
        let why = taken(&mut offers, &answered(&first, ufrag, certificate));
        let why = why.map(|_| ()).unwrap_err();
        assert!(why.contains(sentence), "{why}");
    }
    // Where we begin ICE anew, the peer must, too.
    offers.restart_ice().unwrap();
    let again = offers.offer().unwrap();
    assert_ne!(
        all(&again, "a=ice-ufrag:")[0],
        all(&first, "a=ice-ufrag:")[0]
    );
    let why = taken(&mut offers, &answered(&again, "abcd", "AB"));
    assert!(why.map(|_| ()).unwrap_err().contains("the answer does not"));
    let taken = taken(&mut offers, &answered(&again, "efgh", "AB"));
    assert!(matches!(
        taken,
        Ok(AnswerTaken::Changed {
            restart: Some(_),
            ..
        })
    ));
}

#[test]
fn names_and_m_lines_are_bounded_and_many_take_little_time() {
    let mut offers = offers();
    for wrong in [
        "",
        "a",
        "a ",
        "a b c",
        "a b\r\na=x",
        &"a b".repeat(100),
        "a \u{7}",
    ] {
        assert!(offers.add(Video, wrong).is_err(), "{wrong:?}");
    }
    for n in 0..256 {
        assert_eq!(add(&mut offers, [Video, Audio][n % 2], n), n);
    }
    let why = offers.add(Video, "a b").unwrap_err().to_string();
    assert!(why.contains("256"), "{why}");
    // As many as a room of 100 has: a sound and a camera each. CPU, for others are at work here, too.
    let begin = cpu();
    let offer = offers.offer().unwrap();
    taken(&mut offers, &answered(&offer, "abcd", "AB")).unwrap();
    let took = cpu() - begin;
    println!("256 m-lines: {} octets, {took:?}", offer.len());
    assert!(took < Duration::from_millis(200), "{took:?}");
}

/// What this thread has taken.
fn cpu() -> Duration {
    let usage = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = usage.split(' ').next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}
