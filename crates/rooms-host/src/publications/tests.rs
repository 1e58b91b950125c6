// SPDX-License-Identifier: MPL-2.0

use sfu_engine::transport::TrackIn;

use super::*;

fn names() -> Names {
    Names::new("r", "ann", &Sid::participant()).unwrap()
}

fn line(mid: u16, codec: Codec, cid: &str) -> PublisherTrack {
    PublisherTrack {
        track: TrackIn(mid),
        mid: mid.to_string(),
        msid: (!cid.is_empty()).then(|| format!("stream {cid}")),
        language: None,
        codec,
        rids: vec![None],
    }
}

fn announced(kind: TrackType, cid: &str, is_screen: bool) -> Expected {
    Expected {
        track: Sid::participant(),
        kind,
        cids: vec![cid.to_owned()],
        codecs: Vec::new(),
        is_screen,
        sizes: Vec::new(),
        without_red: false,
    }
}

/// Each stream's name with the mids of its tracks.
fn streams(grouped: &[Grouped]) -> Vec<(String, Vec<String>)> {
    let one = |g: &Grouped| {
        let mids = g.tracks.iter().map(|t| t.mid.clone());
        (g.names[0].to_string(), mids.collect())
    };
    grouped.iter().map(one).collect()
}

fn owned(all: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let one = |(name, mids): &(&str, &[&str])| {
        let mids = mids.iter().map(|mid| (*mid).to_owned());
        ((*name).to_owned(), mids.collect())
    };
    all.iter().map(one).collect()
}

#[test]
fn what_belongs_together_is_one_stream_and_stays_so() {
    let (names, mut all) = (names(), Publications::default());
    let camera = announced(TrackType::Video, "c", false);
    let voice = announced(TrackType::Audio, "m", false);
    let screen = announced(TrackType::Video, "s", true);
    let sound = announced(TrackType::Audio, "ss", true);
    let second = announced(TrackType::Video, "c2", false);
    let expected = [camera, voice, screen, sound, second].to_vec();
    let [c, m, s, ss, c2] = [
        line(1, Codec::Vp8, "c"),
        line(2, Codec::Opus, "m"),
        line(3, Codec::Vp8, "s"),
        line(4, Codec::Opus, "ss"),
        line(5, Codec::H264, "c2"),
    ];
    let extra = format!("r/ann/{}", expected[4].track);
    let own = ["r/ann", "r/ann/screen", &extra];
    let mut ids = Vec::new();
    let mut offer = |tracks: &[&PublisherTrack], is: &[(&str, &[&str])]| {
        let tracks: Vec<_> = tracks.iter().map(|t| (*t).clone()).collect();
        let (found, grouped) = all.group(&names, &tracks, &expected);
        assert_eq!(found.len(), tracks.len());
        assert_eq!(streams(&grouped), owned(is));
        ids.push(grouped.iter().map(|g| g.id).collect::<Vec<_>>());
    };
    offer(&[], &[]);
    offer(&[&m], &[(own[0], &["2"])]);
    offer(&[&c, &m], &[(own[0], &["1", "2"])]);
    let three: [(&str, &[&str]); 3] = [
        (own[0], &["1", "2"]),
        (own[1], &["3", "4"]),
        (own[2], &["5"]),
    ];
    offer(&[&c, &m, &s, &ss, &c2], &three);
    // The second camera stays another stream when the first one goes.
    offer(&[&m, &c2], &[(own[0], &["2"]), (own[2], &["5"])]);
    offer(&[&c2], &[(own[2], &["5"])]);
    offer(&[&c2, &m], &[(own[2], &["5"]), (own[0], &["2"])]);
    let id = PublicationId;
    let expected_ids = [
        vec![],
        vec![id(0)],
        vec![id(0)],
        vec![id(0), id(1), id(2)],
        vec![id(0), id(2)],
        vec![id(2)],
        vec![id(2), id(3)],
    ];
    assert_eq!(ids, expected_ids, "one that ended has its number no more");
}

#[test]
fn tracks_are_found_by_the_clients_id_or_by_what_they_were_or_by_their_kind() {
    let (names, mut all) = (names(), Publications::default());
    let first = announced(TrackType::Video, "a", false);
    let second = announced(TrackType::Video, "b", false);
    let expected = [first.clone(), second.clone()];
    let mut found = |tracks: &[PublisherTrack]| {
        let (found, _) = all.group(&names, tracks, &expected);
        let one = |f: Found| (f.mid, f.track, f.cid, f.mime);
        found.into_iter().map(one).collect::<Vec<_>>()
    };
    let vp8 = |mid, cid| line(mid, Codec::Vp8, cid);
    let is = |mid: &str, e: &Expected, cid: &str| {
        (
            mid.to_owned(),
            e.track.clone(),
            cid.to_owned(),
            "video/VP8".to_owned(),
        )
    };
    // By id, whatever the order.
    let (a, b) = (is("1", &first, "a"), is("2", &second, "b"));
    assert_eq!(found(&[vp8(2, "b"), vp8(1, "a")]), [b.clone(), a]);
    // A browser that has replaced a track keeps the m-line.
    let kept = is("1", &first, "other");
    assert_eq!(found(&[vp8(1, "other"), vp8(2, "b")]), [kept, b]);
    // Without ids: the first of its kind that is free.
    let mut all = Publications::default();
    let (by_kind, grouped) = all.group(&names, &[vp8(1, ""), vp8(2, "b")], &expected);
    assert_eq!(
        (&by_kind[0].track, &by_kind[1].track),
        (&first.track, &second.track)
    );
    assert_eq!(grouped.len(), 2);
    // What was not announced, or as something else, is nobody's.
    let mut all = Publications::default();
    let strange = [
        line(1, Codec::Opus, "a"),
        vp8(2, "b"),
        vp8(3, ""),
        vp8(4, ""),
    ];
    let (by_kind, grouped) = all.group(&names, &strange, &expected);
    let mids: Vec<_> = by_kind.iter().map(|f| f.mid.as_str()).collect();
    assert_eq!(mids, ["2", "3"]);
    assert_eq!(grouped.len(), 2);
}

#[test]
fn what_takes_the_place_of_a_lone_track_is_the_same_stream() {
    let (names, mut all) = (names(), Publications::default());
    let screen = |cid| announced(TrackType::Video, cid, true);
    let expected = [
        screen("a"),
        screen("b"),
        announced(TrackType::Audio, "c", true),
        announced(TrackType::Video, "d", false),
        announced(TrackType::Video, "e", false),
    ];
    let vp8 = |cid| line(1, Codec::Vp8, cid);
    let extra = format!("r/ann/{}", expected[4].track);
    let mut ids = Vec::new();
    for (tracks, is) in [
        (vec![vp8("a")], vec!["r/ann/screen"]),
        // Another one on the same m-line, or on another one.
        (vec![vp8("b")], vec!["r/ann/screen"]),
        (vec![line(2, Codec::Vp8, "a")], vec!["r/ann/screen"]),
        (vec![line(3, Codec::Opus, "c")], vec!["r/ann/screen"]),
        // What belongs to no other one does not take its place.
        (vec![line(3, Codec::Vp8, "d")], vec!["r/ann"]),
        (
            vec![line(3, Codec::Vp8, "d"), line(4, Codec::Vp8, "e")],
            vec!["r/ann", &extra],
        ),
    ] {
        let (_, grouped) = all.group(&names, &tracks, &expected);
        let named: Vec<_> = grouped.iter().map(|g| g.names[0].to_string()).collect();
        assert_eq!(named, is, "{tracks:?}");
        ids.push(grouped[0].id.0);
    }
    assert_eq!(ids, [0, 0, 0, 0, 1, 1]);
}

/// What a client announces under one id, once or again, and what its m-lines are then.
#[test]
fn an_id_that_was_announced_twice_is_what_the_m_line_was_or_the_newest() {
    let video = |cid| announced(TrackType::Video, cid, false);
    let (first, second, other) = (video("a"), video("a"), video("b"));
    let vp8 = |mid: u16, cid| line(mid, Codec::Vp8, cid);
    // Before, with what was announced by then; and now.
    for (known, before, now, is) in [
        // It is published again on another m-line, beside the first one or instead of it.
        (
            1,
            vec![vp8(1, "a")],
            vec![vp8(1, "a"), vp8(2, "a")],
            vec![0, 1],
        ),
        (1, vec![vp8(1, "a")], vec![vp8(2, "a")], vec![1]),
        // Both were announced before either was offered.
        (2, vec![], vec![vp8(1, "a")], vec![1]),
        // An m-line keeps what it was.
        (2, vec![vp8(1, "a")], vec![vp8(1, "a")], vec![1]),
        // What is live is on its m-line, and none that has no known id.
        (
            3,
            vec![vp8(1, "b")],
            vec![vp8(1, "b"), vp8(2, "")],
            vec![2, 0],
        ),
        (1, vec![vp8(1, "a")], vec![vp8(2, "x")], vec![1]),
    ] {
        let (names, mut all) = (names(), Publications::default());
        let expected = [first.clone(), second.clone(), other.clone()];
        all.group(&names, &before, &expected[..known]);
        let (found, _) = all.group(&names, &now, &expected);
        let found: Vec<_> = found.into_iter().map(|f| f.track).collect();
        let is: Vec<_> = is
            .into_iter()
            .map(|n: usize| expected[n].track.clone())
            .collect();
        assert_eq!(found, is, "{before:?} {now:?}");
    }
}

#[test]
fn each_codec_of_a_track_is_a_stream_and_the_one_that_was_announced_first_is_the_tracks() {
    let (names, mut all) = (names(), Publications::default());
    let mut track = announced(TrackType::Video, "vp9", false);
    track.cids.push("vp8".into());
    let (sid, expected) = (track.track.clone(), [track]);
    let backup = format!("r/ann/{sid}-vp8");
    let [vp9, vp8] = [line(2, Codec::Vp9, "vp9"), line(1, Codec::Vp8, "vp8")];
    let twice = line(3, Codec::Vp8, "vp8");
    let (first, both) = (("r/ann", &["2"][..]), (&*backup, &["1"][..]));
    let mut ids = Vec::new();
    for (tracks, mimes, is) in [
        (vec![&vp9], &["video/VP9"][..], vec![first]),
        // Whichever m-line is the first of the two.
        (
            vec![&vp8, &vp9],
            &["video/VP8", "video/VP9"],
            vec![first, both],
        ),
        (
            vec![&vp9, &vp8],
            &["video/VP9", "video/VP8"],
            vec![first, both],
        ),
        (
            vec![&vp8, &vp9, &twice],
            &["video/VP8", "video/VP9", "video/VP8"],
            vec![first, both],
        ),
        (vec![&vp9], &["video/VP9"], vec![first]),
        (
            vec![&vp9, &vp8],
            &["video/VP9", "video/VP8"],
            vec![first, both],
        ),
    ] {
        let tracks: Vec<_> = tracks.into_iter().cloned().collect();
        let (found, grouped) = all.group(&names, &tracks, &expected);
        let found: Vec<_> = found.iter().map(|f| f.mime.as_str()).collect();
        assert_eq!(found, mimes);
        assert_eq!(streams(&grouped), owned(&is));
        assert_eq!(all.codec(&sid), Some(Codec::Vp9));
        ids.push(all.further(&sid).map(|(_, id)| id.0).collect::<Vec<_>>());
        assert_eq!(
            all.streams().count(),
            1,
            "what is recorded is the track once"
        );
    }
    let is = [vec![], vec![1], vec![1], vec![1], vec![], vec![2]];
    assert_eq!(ids, is, "one that ended has its number no more");
}
