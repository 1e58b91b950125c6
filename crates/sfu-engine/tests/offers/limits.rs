// SPDX-License-Identifier: MPL-2.0

//! What an offer may have of everything, and that reading takes time in proportion to its size.

use std::time::{Duration, Instant};

use sfu_engine::transport::negotiate;

use crate::rows::{Change, PLAIN};
use crate::{KINDS, Kind, answer, offer};

/// The largest body that is taken.
const BODY: usize = 64 * 1024;

/// What there may be so much of and no more: its name, how many, and an offer with `n` of it.
type Limit = (&'static str, usize, fn(&str, usize) -> String);

fn video(offer: &str, more: &str) -> String {
    let end = "a=fmtp:97 apt=96\r\n";
    offer.replace(end, &format!("{end}{more}"))
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect()
}

const LIMITS: &[Limit] = &[
    ("m-lines", 8, |offer, n| {
        let more = lines(n - 2, |i| {
            format!("m=text 9 UDP/TLS/RTP/SAVPF 98\r\na=mid:t{i}\r\n")
        });
        format!("{offer}{more}")
    }),
    ("payload types", 64, |offer, n| {
        let mut pts = (0..=255usize).filter(|pt| !matches!(pt, 96 | 97));
        let more: String = pts
            .by_ref()
            .take(n - 2)
            .map(|pt| format!(" {pt}"))
            .collect();
        offer.replace("SAVPF 96 97", &format!("SAVPF 96 97{more}"))
    }),
    ("sources", 64, |offer, n| {
        video(
            offer,
            &lines(n, |i| {
                format!("a=ssrc:{i} cname:x\r\na=ssrc:{i} msid:x y\r\n")
            }),
        )
    }),
    ("candidates", 30, |offer, n| {
        video(
            offer,
            &lines(n, |i| {
                format!("a=candidate:{i} 1 udp 1 192.0.2.1 {i} typ host\r\n")
            }),
        )
    }),
    ("candidates of the last m-line", 30, |offer, n| {
        let more = lines(n, |i| {
            format!("a=candidate:{i} 1 udp 1 192.0.2.1 {i} typ host\r\n")
        });
        format!("{offer}{more}")
    }),
    ("candidates of the session", 30, |offer, n| {
        let more = lines(n, |i| {
            format!("a=candidate:{i} 1 udp 1 192.0.2.1 {i} typ host\r\n")
        });
        offer.replace("m=video", &format!("{more}m=video"))
    }),
    ("characters of a name", 64, |offer, n| {
        let name = "m".repeat(n);
        offer
            .replace("BUNDLE 0", &format!("BUNDLE {name}"))
            .replace("a=mid:0", &format!("a=mid:{name}"))
    }),
    ("characters of what an m-line is of", 32, |offer, n| {
        format!(
            "{offer}m={} 9 UDP/TLS/RTP/SAVPF 98\r\na=mid:t\r\n",
            "t".repeat(n)
        )
    }),
    ("characters of a user fragment", 256, |offer, n| {
        offer.replace("ufrag:abcd", &format!("ufrag:{}", "u".repeat(n)))
    }),
];

/// Those of a publisher alone.
const LAYERS: Limit = ("layers", 8, |offer, n| {
    let rids = lines(n, |i| format!("a=rid:{i} send\r\n"));
    let names: Vec<_> = (0..n).map(|i| i.to_string()).collect();
    let extensions = "a=extmap:2 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
                      a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
    video(
        offer,
        &format!("{extensions}{rids}a=simulcast:send {}\r\n", names.join(";")),
    )
});

#[test]
fn each_limit_is_kept_exactly() {
    for &kind in KINDS {
        let of_publishers = [LAYERS];
        let more = if kind == Kind::Whip {
            &of_publishers[..]
        } else {
            &[]
        };
        for (name, most, make) in LIMITS.iter().chain(more) {
            let plain = offer(kind, &[]);
            let most_of_all = make(&plain, *most);
            assert!(
                answer(kind, &most_of_all).is_ok(),
                "{kind:?}: {most} {name}: {:?}",
                answer(kind, &most_of_all)
            );
            for more in [*most + 1, *most * 2] {
                let refused = answer(kind, &make(&plain, more));
                let why = refused.expect_err(name).to_string();
                assert!(why.contains(&most.to_string()), "{name}: {why}");
            }
        }
    }
}

/// Offers that grow by one kind of line.
const GROWING: &[(&str, &str)] = &[
    ("unknown attributes", "a=x:y\r\n"),
    ("the shortest lines", "b=\r\n"),
    ("blank lines", "\r\n"),
    ("sources said again", "a=ssrc:1 cname:x\r\n"),
    ("groups of sources", "a=ssrc-group:FID 1 2\r\n"),
    ("formats said again", "a=rtpmap:96 H264/90000\r\n"),
    ("parameters", "a=fmtp:96 a=b;c=d;apt=1\r\n"),
    (
        "one parameter after the other",
        "a=fmtp:97 ;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;\r\n",
    ),
    ("feedback", "a=rtcp-fb:* nack pli\r\n"),
    ("layers said again", "a=rid:a send\r\n"),
    (
        "extensions",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
    ),
    ("fingerprints", "a=fingerprint:sha-256 00\r\n"),
    ("credentials", "a=ice-ufrag:x\r\n"),
    ("groups", "a=group:BUNDLE 0 1 2 3 4\r\n"),
];

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn fastest(kind: Kind, offer: &str) -> Duration {
    let took = (0..7).map(|_| {
        let began = cpu();
        let _ = answer_only(kind, offer);
        cpu() - began
    });
    took.min().unwrap_or_default()
}

/// Without the tests' own checks.
fn answer_only(kind: Kind, offer: &str) -> bool {
    crate::answered(kind, offer).is_ok()
}

#[test]
fn time_grows_with_the_size_and_no_faster() {
    for &kind in KINDS {
        let plain = offer(kind, &[]);
        let head = |more: &str| plain.replace("m=video", &format!("{more}m=video"));
        for (name, line) in GROWING {
            let grown = |size: usize| {
                let more = line.repeat((size - plain.len()) / line.len());
                [video(&plain, &more), head(&more), format!("{plain}{more}")]
            };
            let pairs = grown(BODY / 4).into_iter().zip(grown(BODY));
            for (quarter, whole) in pairs {
                let (small, large) = (fastest(kind, &quarter), fastest(kind, &whole));
                println!(
                    "{kind:?} {name}: {small:?} of {}, {large:?} of {}",
                    quarter.len(),
                    whole.len()
                );
                // Sixteen times would be quadratic; what is fixed makes it less than four times.
                assert!(
                    large < small * 9 + Duration::from_micros(500),
                    "{name}: {small:?}, {large:?}"
                );
                assert!(large < Duration::from_millis(5), "{name}: {large:?}");
            }
        }
    }
}

/// 64 payload types of each kind, with parameters and feedback up to the size of a body.
#[test]
fn the_largest_offers_of_payload_types_are_cheap() {
    let dynamic: Vec<usize> = (0..64).chain(96..128).take(64).collect();
    for map in ["H264/90000", "rtx/90000", "red/90000", "VP9/90000"] {
        for &kind in KINDS {
            let plain = offer(kind, &[Change::Formats("PTS", "FORMATS\n")]);
            let pts: Vec<_> = dynamic.iter().map(ToString::to_string).collect();
            let mut said = String::new();
            for (n, pt) in dynamic.iter().enumerate() {
                let map = if n % 2 == 0 { "H264/90000" } else { map };
                said += &format!(
                    "a=rtpmap:{pt} {map}\r\na=rtcp-fb:{pt} nack\r\na=fmtp:{pt} apt={}",
                    dynamic[n / 2]
                );
                said += &";x=y;apt=5".repeat(90);
                said += "\r\n";
            }
            let offer = plain
                .replace("PTS", &pts.join(" "))
                .replace("FORMATS\r\n", &said);
            assert!(offer.len() > BODY - 8_192, "{}", offer.len());
            let took = fastest(kind, &offer);
            println!("{kind:?} {map}: {took:?}");
            assert!(took < Duration::from_millis(5), "{kind:?} {map}: {took:?}");
        }
    }
    assert!(PLAIN.len() < BODY);
}

/// An offer to publish so many tracks, each of which has 48 payload types, the first of them being `from(line)`.
fn tracks(lines: usize, identified: bool, from: impl Fn(usize) -> usize) -> String {
    let (session, media) = PLAIN.split_once("m=video").expect("an m-line");
    let credentials = media.lines().filter(|line| {
        let of_all = ["a=ice", "a=fingerprint", "a=setup"];
        of_all.iter().any(|start| line.starts_with(start))
    });
    let credentials: String = credentials.map(|line| format!("{line}\n")).collect();
    let mids: Vec<_> = (0..lines).map(|n| n.to_string()).collect();
    let mut offer = session.replace("BUNDLE 0", &format!("BUNDLE {}", mids.join(" ")));
    let dynamic: Vec<_> = (0..64).chain(96..128).collect();
    for mid in 0..lines {
        let pts: Vec<_> = dynamic[from(mid)..][..48]
            .iter()
            .map(usize::to_string)
            .collect();
        offer += &format!(
            "m=video 9 UDP/TLS/RTP/SAVPF {}\nc=IN IP4 0.0.0.0\n",
            pts.join(" ")
        );
        offer += &format!("a=mid:{mid}\na=sendonly\na=rtcp-mux\n{credentials}");
        if identified {
            offer += "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\n";
        }
        for pt in pts {
            offer += &format!("a=rtpmap:{pt} VP8/90000\n");
        }
    }
    offer.replace('\n', "\r\n")
}

fn answer_tracks(offer: &str) -> Result<(), String> {
    let local = ["192.0.2.1:8189".parse().expect("an address")];
    let now = Instant::now();
    let answered = negotiate::accept_tracks(&crate::IDENTITY, offer, &local, None, now);
    answered.map(|_| ()).map_err(|why| why.to_string())
}

/// Whoever offers far more tracks than there may be is told so before what of them fits to what is looked at.
#[test]
fn payload_types_of_many_m_lines_are_compared_in_no_time() {
    let most = answer_tracks(&tracks(16, true, |_| 0));
    assert_eq!(most, Ok(()), "packets tell whose they are");
    for (lines, identified, why) in [
        (255, true, "more than 16 tracks"),
        (255, false, "more than 16 tracks"),
        (
            16,
            false,
            "payload type 0 stands for formats of two m-lines",
        ),
    ] {
        let offer = tracks(lines, identified, |_| 0);
        let took = (0..5).map(|_| {
            let began = Instant::now();
            let refused = answer_tracks(&offer).expect_err(why);
            assert!(refused.contains(why), "{refused}");
            began.elapsed()
        });
        let took = took.min().unwrap_or_default();
        println!("{lines} {identified}: {took:?} of {}", offer.len());
        // Pair by pair it took 100 to 200 ms.
        assert!(took < Duration::from_millis(50), "{lines}: {took:?}");
    }
    // Two that have none in common need nothing; what one has in common with the first alone is found, too.
    assert_eq!(answer_tracks(&tracks(2, false, |n| 48 * n)), Ok(()));
    let third = answer_tracks(&tracks(3, false, |n| [0, 48, 40][n]));
    assert!(third.is_err_and(|why| why.contains("payload type 40 stands")));
}
