// SPDX-License-Identifier: MPL-2.0

//! RTSP's Digest (RFC 2617, as its players speak it: MD5, without `qop`), for users of whom the access file has an `ha1=`.
//!
//! Nonces are not kept: each tells when and for whom it was made, under a key of this process.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use md5::{Digest as _, Md5};

/// What users' passwords are hashed with for it: another one makes other hashes.
pub const REALM: &str = "gst-sfu";
/// How long an answer to a nonce is taken. Who was let in needs no new one.
const FRESH: Duration = Duration::from_secs(60);

/// What a player shows. It tells nothing but what any listener on the way hears.
#[derive(Debug, Clone, Copy)]
pub struct DigestAnswer<'a> {
    /// The user's name.
    pub user: &'a str,
    /// What we gave.
    pub nonce: &'a str,
    /// What it asks for, as it says it.
    pub uri: &'a str,
    /// What only who knows the password can say.
    pub response: &'a str,
    /// The request's method; more than one where that is not known.
    pub methods: &'a [&'a str],
}

/// What goes into the access file for a user: `ha1=…`.
pub fn ha1(user: &str, password: &str) -> String {
    hex(&Md5::digest(format!("{user}:{REALM}:{password}")))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|b| format!("{b:02x}")).collect()
}

/// As it stands in a file, or nothing.
pub(crate) fn read_ha1(text: &str) -> Option<String> {
    let is_one = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_one.then(|| text.to_ascii_lowercase())
}

impl DigestAnswer<'_> {
    /// Whether it was made with that.
    pub(crate) fn fits(&self, ha1: &str) -> bool {
        self.methods.iter().any(|method| {
            let asked = hex(&Md5::digest(format!("{method}:{}", self.uri)));
            let right = hex(&Md5::digest(format!("{ha1}:{}:{asked}", self.nonce)));
            let given = self.response.to_ascii_lowercase();
            aws_lc_rs::constant_time::verify_slices_are_equal(right.as_bytes(), given.as_bytes())
                .is_ok()
        })
    }
}

/// Makes nonces, and knows its own.
#[derive(Debug)]
pub struct Nonces(hmac::Key);

impl Nonces {
    /// With a key that ends with the process.
    pub fn new() -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| format!("no random numbers: {e}"))?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// For who asks from there.
    pub fn make(&self, address: Option<IpAddr>, now: SystemTime) -> String {
        let seconds = seconds(now);
        format!("{seconds:x}-{}", self.mark(seconds, address))
    }

    /// Whether it is one of ours, for there, and not too old.
    pub fn is_good(&self, nonce: &str, address: Option<IpAddr>, now: SystemTime) -> bool {
        let Some((made, mark)) = nonce.split_once('-') else {
            return false;
        };
        let Ok(made) = u64::from_str_radix(made, 16) else {
            return false;
        };
        let age = seconds(now).checked_sub(made);
        age.is_some_and(|age| age < FRESH.as_secs()) && mark == self.mark(made, address)
    }

    fn mark(&self, seconds: u64, address: Option<IpAddr>) -> String {
        let text = format!("{seconds} {:?}", address.map(|a| a.to_canonical()));
        hex(&hmac::sign(&self.0, text.as_bytes()).as_ref()[..16])
    }
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map(|time| time.as_secs()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_rfc_2617() {
        // Section 3.5, without qop (section 3.2.2.1), and with its realm.
        let ha1 = hex(&Md5::digest("Mufasa:testrealm@host.com:Circle Of Life"));
        assert_eq!(ha1, "939e7578ed9e3c518a452acee763bce9");
        let answer = |response: &'static str, methods: &'static [&'static str]| DigestAnswer {
            user: "Mufasa",
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            uri: "/dir/index.html",
            response,
            methods,
        };
        let right = "670fd8c2df070c60b045671b8b24ff02";
        assert!(answer(right, &["GET"]).fits(&ha1));
        assert!(answer(right, &["DESCRIBE", "GET"]).fits(&ha1));
        assert!(!answer(right, &["DESCRIBE"]).fits(&ha1));
        assert!(!answer("", &["GET"]).fits(&ha1));
        assert!(!answer(right, &["GET"]).fits(&ha1.replace('9', "8")));
    }

    #[test]
    fn nonces_are_for_an_address_and_a_minute() {
        let (nonces, others) = (Nonces::new().unwrap(), Nonces::new().unwrap());
        let now = SystemTime::now();
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        let mapped = Some("::ffff:127.0.0.1".parse().unwrap());
        let there = Some(IpAddr::from([192, 0, 2, 1]));
        let nonce = nonces.make(here, now);
        let later = |seconds| now + Duration::from_secs(seconds);
        for (nonce, address, at, good) in [
            (nonce.as_str(), here, now, true),
            (&nonce, mapped, later(58), true),
            (&nonce, here, later(61), false),
            (&nonce, here, now - Duration::from_secs(5), false),
            (&nonce, there, now, false),
            (&nonce, None, now, false),
            (&others.make(here, now), here, now, false),
            ("", here, now, false),
            ("-", here, now, false),
            ("ffffffffffffffffffff-0", here, now, false),
            (&nonce[..nonce.len() - 1], here, now, false),
        ] {
            assert_eq!(nonces.is_good(nonce, address, at), good, "{nonce}");
        }
    }
}
