// SPDX-License-Identifier: MPL-2.0
//! What RTMP, RTSP and SRT go by: rules that change while nobody is let in count for the next one who comes.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use sfu_access::{Action, Door, Knock, Refused, Visitor};

/// Longer than the rules are taken to be as they were.
const A_WHILE: Duration = Duration::from_millis(1_100);

fn stranger() -> Visitor<'static> {
    Visitor {
        address: Some(IpAddr::from([203, 0, 113, 9])),
        named: true,
        protocol: "rtsp",
        ..Visitor::default()
    }
}

fn knocks(door: &Door) -> Option<bool> {
    match door.knock(&stranger(), Action::Play, "cam1") {
        Knock::Allowed(_) => Some(true),
        Knock::Refused(_) => Some(false),
        Knock::Wait => None,
    }
}

#[test]
fn rules_that_change_while_nobody_is_there_hold_for_who_comes() {
    let file = std::env::temp_dir().join(format!("sfu-door-{}", std::process::id()));
    fs::write(&file, "anyone play\n").unwrap();
    let warn = |why: &str| assert!(why.contains("line 1"), "{why}");
    let door = Door::open(file.to_str().unwrap(), warn).unwrap();
    let admitted = || door.admit(&stranger(), Action::Play, "cam1").map(drop);
    assert_eq!((admitted(), knocks(&door)), (Ok(()), Some(true)));
    // Taken, given, and broken, which changes nothing.
    for (rules, may) in [
        ("loopback\n", false),
        ("anyone play=cam1\n", true),
        ("nonsense\n", true),
    ] {
        fs::write(&file, rules).unwrap();
        std::thread::sleep(A_WHILE);
        // The one thread that all callers' packets come by does not read files: another one is to look.
        assert_eq!(knocks(&door), None, "{rules}");
        let expected = if may { Ok(()) } else { Err(Refused::Nothing) };
        assert_eq!(admitted(), expected, "{rules}");
        assert_eq!(knocks(&door), Some(may), "{rules}");
        std::thread::sleep(A_WHILE);
        assert_eq!(knocks(&door), Some(may), "{rules}");
    }
    // And without anybody who knocks.
    fs::write(&file, "loopback\n").unwrap();
    std::thread::sleep(A_WHILE);
    assert_eq!(admitted(), Err(Refused::Nothing));
    fs::remove_file(&file).unwrap();
}
