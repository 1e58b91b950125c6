// SPDX-License-Identifier: MPL-2.0

//! The one who decides. What everybody may do there and then is looked at first, and a credential only where
//! that is not enough: so a wrong one costs nothing where none is needed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use ipnet::IpNet;

use crate::config::{self, ConfigError, Policy, Seen, User, digest_of};
use crate::digest::DigestAnswer;
use crate::keys::Keys;
use crate::password::{Known, Passwords};
use crate::proof::{Proof, Shown};
use crate::revoked::Revoked;
use crate::token::{self, TOKEN_MAX, Token, TokenError};
use crate::visitor::{Credential, Job, Outcome, Refused, Visitor, Want, Ways, Work};
use crate::webhook::{self, Verdict, Webhooks};
use crate::{Action, Grants, Pattern, segment};

/// How often who comes is asked for at most: for a password, and by a webhook.
const TRIES: usize = 3;

/// The one who decides. Cheap to ask from any thread.
#[derive(Debug)]
pub struct Access {
    path: Option<PathBuf>,
    policy: ArcSwap<Policy>,
    seen: Mutex<Seen>,
    passwords: Passwords,
    webhooks: Webhooks,
    providers: Keys,
    revoked: Revoked,
    /// For segments where there is no secret.
    random: hmac::Key,
    generation: Arc<AtomicU64>,
}

impl Access {
    /// By the rules in a file, or by those that hold without one.
    pub fn open(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut seen = Seen::new();
        let policy = path.map(|path| config::load(path, &mut seen)).transpose()?;
        let revoked = Revoked::open(path)?;
        let mut key = [0; 32];
        let no_random = |what: String| ConfigError::File("/dev/urandom".into(), what);
        getrandom::fill(&mut key).map_err(|e| no_random(e.to_string()))?;
        let policy = policy.unwrap_or_default();
        let generation = Arc::new(AtomicU64::new(0));
        let providers = Keys::new(generation.clone());
        providers.want(&policy.providers);
        Ok(Self {
            path: path.map(Path::to_owned),
            policy: ArcSwap::from_pointee(policy),
            webhooks: Webhooks::new(&key),
            providers,
            revoked,
            seen: Mutex::new(seen),
            passwords: Passwords::new().map_err(no_random)?,
            random: hmac::Key::new(hmac::HMAC_SHA256, &key),
            generation,
        })
    }

    /// One line that tells what holds.
    pub fn summary(&self) -> String {
        self.policy.load().summary()
    }

    /// What can be shown here.
    pub fn ways(&self) -> Ways {
        self.policy.load().ways()
    }

    /// Whether all that can be shown are passwords of users with an HA1.
    pub(crate) fn is_digest_enough(&self) -> bool {
        let policy = self.policy.load();
        let others = policy.keys.is_empty()
            && policy.signers.is_empty()
            && policy.providers.is_empty()
            && policy.webhook.is_none();
        others && !policy.users.is_empty() && policy.users.values().all(|user| user.ha1.is_some())
    }

    /// Whether another server is asked about whom the rules don't let in.
    pub fn asks(&self) -> bool {
        self.policy.load().webhook.is_some()
    }

    /// Changes with the rules.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Whether one of the files has changed since they were read.
    pub(crate) fn has_changed(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        config::have_changed(&seen) || self.revoked.has_changed()
    }

    /// Reads the files again where one has changed: `None` where none has. What is wrong changes nothing.
    pub fn refresh(&self) -> Option<Result<(), ConfigError>> {
        let path = self.path.as_deref()?;
        let revoked = self.refresh_revoked();
        match (self.refresh_rules(path), revoked) {
            (Some(Err(error)), _) | (_, Some(Err(error))) => Some(Err(error)),
            (None, None) => None,
            _ => Some(Ok(())),
        }
    }

    /// What others took back.
    fn refresh_revoked(&self) -> Option<Result<(), ConfigError>> {
        let read = self.revoked.refresh();
        if matches!(read, Some(Ok(()))) {
            self.generation.fetch_add(1, Relaxed);
        }
        read
    }

    fn refresh_rules(&self, path: &Path) -> Option<Result<(), ConfigError>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !config::have_changed(&seen) {
            return None;
        }
        let loaded = config::load(path, &mut seen).and_then(|policy| {
            // Editors and copies empty a file before they fill it.
            let is_emptied = policy.rules == 0 && self.policy.load().rules > 0;
            match is_emptied {
                true => Err(ConfigError::Empty(path.to_owned())),
                false => Ok(policy),
            }
        });
        Some(loaded.map(|policy| {
            self.providers.want(&policy.providers);
            self.policy.store(Arc::new(policy));
            self.generation.fetch_add(1, Relaxed);
        }))
    }

    /// Whether that may be done.
    pub fn check(&self, visitor: &Visitor<'_>, wants: &[Want], now: SystemTime) -> Outcome {
        let policy = self.policy.load_full();
        let proof = Proof::of(visitor, None);
        if wants.iter().all(|want| ambient(&policy, &proof, want)) {
            return Outcome::Allowed(proof);
        }
        let refused = match visitor.credential {
            None => Refused::Nothing,
            Some(credential) => match self.recognize(&policy, credential, visitor.address, now) {
                Ok(shown) => {
                    let proof = Proof::of(visitor, Some(shown));
                    match self.rights_by(policy.clone(), &proof, now).may(wants) {
                        Ok(()) => return Outcome::Allowed(proof),
                        Err(refused) => refused,
                    }
                }
                Err(Outcome::Refused(refused)) => refused,
                Err(other) => return other,
            },
        };
        self.ask(&policy, visitor, &proof, wants, refused, now)
    }

    /// Whom the rules refuse the webhook may let in, if there is one.
    fn ask(
        &self,
        policy: &Policy,
        visitor: &Visitor<'_>,
        proof: &Proof,
        wants: &[Want],
        refused: Refused,
        now: SystemTime,
    ) -> Outcome {
        let asker = webhook::asker(visitor.credential, visitor.address, visitor.protocol);
        // What was taken back, or must wait, is not asked for.
        let is_final = matches!(
            refused,
            Refused::Revoked | Refused::Later(_) | Refused::Busy
        );
        let (Some(hook), Some(asker), false) = (&policy.webhook, asker, is_final) else {
            return Outcome::Refused(refused);
        };
        let asker = Arc::new(asker);
        let wants: Vec<Want> = wants
            .iter()
            .filter(|want| !ambient(policy, proof, want))
            .cloned()
            .collect();
        match self.webhooks.look(hook, &asker, &wants, Instant::now()) {
            Verdict::Yes => Outcome::Allowed(Proof {
                shown: Some(Shown::Asked {
                    asker,
                    wants: wants.into(),
                    until: now + webhook::YES,
                }),
                ..proof.clone()
            }),
            Verdict::No => Outcome::Refused(refused),
            Verdict::Silent => Outcome::Refused(Refused::Silent),
            Verdict::Unknown => Outcome::Hash(Job(Work::Ask(Webhooks::job(hook, asker, &wants)))),
        }
    }

    /// As much as may be done: all of `most`, or else `least`. What is shown is looked at though `least` may need nothing: who
    /// was given a token for more is told what is wrong with it, and not let in for less.
    pub fn check_most(
        &self,
        visitor: &Visitor<'_>,
        most: &[Want],
        least: &[Want],
        now: SystemTime,
    ) -> Outcome {
        let refused = match self.check(visitor, most, now) {
            Outcome::Refused(refused) => refused,
            other => return other,
        };
        // What we don't know a webhook may, and it has said no to more.
        let is_asked = self.asks();
        let is_bad = visitor.credential.is_some()
            && match refused {
                Refused::NotThis => false,
                Refused::Unknown
                | Refused::Token(TokenError::Unsigned | TokenError::Algorithm(_)) => !is_asked,
                _ => true,
            };
        match self.check(visitor, least, now) {
            Outcome::Allowed(proof) if is_bad && !proof.has_shown() => Outcome::Refused(refused),
            other => other,
        }
    }

    /// What is wrong with what is shown, whatever it may be for.
    pub fn unknown(&self, visitor: &Visitor<'_>, now: SystemTime) -> Option<Refused> {
        let policy = self.policy.load_full();
        let shown = self.recognize(&policy, visitor.credential?, visitor.address, now);
        match shown {
            Err(Outcome::Refused(why)) => Some(why),
            _ => None,
        }
    }

    /// Who it is, where nothing is to be done yet: for lists, of which each part is asked for ([`Access::still`]). What is
    /// shown and not known counts as not shown.
    pub fn recognized(&self, visitor: &Visitor<'_>, now: SystemTime) -> Outcome {
        let policy = self.policy.load_full();
        let credential = visitor.credential;
        let shown = credential.map(|c| self.recognize(&policy, c, visitor.address, now));
        let shown = match shown.transpose() {
            Ok(shown) => shown,
            Err(job @ Outcome::Hash(_)) => return job,
            Err(_) => None,
        };
        Outcome::Allowed(Proof::of(visitor, shown))
    }

    fn recognize(
        &self,
        policy: &Policy,
        credential: Credential<'_>,
        address: Option<IpAddr>,
        now: SystemTime,
    ) -> Result<Shown, Outcome> {
        let refused = |why| Err(Outcome::Refused(why));
        let (text, user) = match credential {
            Credential::Bearer(text) => (text, None),
            Credential::Basic { user, password } => (password, Some(user)),
            Credential::Digest(answer) => return self.answered(policy, &answer, address),
        };
        if text.len() > TOKEN_MAX {
            return refused(Refused::Unknown);
        }
        let digest = digest_of(text.as_bytes());
        if policy.keys.contains_key(&digest) {
            return Ok(Shown::Key(digest));
        }
        if token::looks_like_one(text) {
            return match self.good_token(policy, text, now) {
                Ok(token) => Ok(Shown::Token {
                    text: text.into(),
                    until: token.until,
                }),
                Err(why) => refused(why),
            };
        }
        let Some(name) = user else {
            return refused(Refused::Unknown);
        };
        if policy.users.is_empty() {
            return refused(Refused::Unknown);
        }
        // Where nobody's address is known all are one.
        let address = address.unwrap_or(IpAddr::from([0; 4]));
        let known = policy.users.get(name);
        let hash = known.map(|user| &user.hash);
        match self
            .passwords
            .look(name, text, hash, address, Instant::now())
        {
            Known::Wrong => refused(Refused::Unknown),
            Known::Later(after) => refused(Refused::Later(after)),
            Known::Full => refused(Refused::Busy),
            Known::Unknown(job) => Err(Outcome::Hash(Job(Work::Hash(job)))),
            Known::Right => match known {
                Some(user) => Ok(Shown::User {
                    name: name.into(),
                    secret: user.hash.clone(),
                }),
                None => refused(Refused::Unknown),
            },
        }
    }

    /// An answer to a nonce costs no hashing, and so is heard at once, but no more often than passwords are.
    fn answered(
        &self,
        policy: &Policy,
        answer: &DigestAnswer<'_>,
        address: Option<IpAddr>,
    ) -> Result<Shown, Outcome> {
        let refused = |why| Err(Outcome::Refused(why));
        let user = policy.users.get(answer.user);
        let Some(ha1) = user.and_then(|user| user.ha1.clone()) else {
            return refused(Refused::Unknown);
        };
        let address = address.unwrap_or(IpAddr::from([0; 4]));
        let right = || answer.fits(&ha1);
        match self.passwords.answer(address, right, Instant::now()) {
            Err(after) => refused(Refused::Later(after)),
            Ok(false) => refused(Refused::Unknown),
            Ok(true) => Ok(Shown::User {
                name: answer.user.into(),
                secret: ha1,
            }),
        }
    }

    /// Hashes a password, or asks a server, on a thread for that. `done` is called once, afterwards.
    pub fn hash(&self, job: Job, done: impl FnOnce() + Send + 'static) -> Result<(), Refused> {
        let queued = match job.0 {
            Work::Hash(job) => self.passwords.hash(job, Box::new(done)),
            Work::Ask(job) => self.webhooks.ask(job, Box::new(done)),
        };
        queued.map_err(|()| Refused::Busy)
    }

    /// [`Access::check`] for callers that may wait.
    pub fn check_and_wait(&self, visitor: &Visitor<'_>, wants: &[Want]) -> Result<Proof, Refused> {
        for _ in 0..TRIES {
            match self.check(visitor, wants, SystemTime::now()) {
                Outcome::Allowed(proof) => return Ok(proof),
                Outcome::Refused(why) => return Err(why),
                Outcome::Hash(job) => {
                    let (sender, receiver) = mpsc::channel();
                    self.hash(job, move || sender.send(()).unwrap_or_default())?;
                    let _ = receiver.recv_timeout(Duration::from_secs(5));
                }
            }
        }
        Err(Refused::Busy)
    }

    /// What somebody may do now, who was recognized once: no token has expired or been revoked, no user, key or rule is gone.
    pub fn rights(&self, proof: &Proof, now: SystemTime) -> Rights {
        self.rights_by(self.policy.load_full(), proof, now)
    }

    fn rights_by(&self, policy: Arc<Policy>, proof: &Proof, now: SystemTime) -> Rights {
        Rights {
            shown: self.granted(&policy, proof, now),
            proof: proof.clone(),
            policy,
        }
    }

    /// Takes a token back by its `jti`: what it let in ends, and nobody who goes by the same access file takes it any more.
    /// `until` is when it ends by itself, as far as that is known. `false`: there are too many already, or `id` is empty or too
    /// long. Waits for the disk.
    pub fn revoke(&self, id: &str, until: Option<SystemTime>, now: SystemTime) -> bool {
        if !self.revoked.add(id, until, now) {
            return false;
        }
        self.generation.fetch_add(1, Relaxed);
        self.save_revoked(now);
        true
    }

    /// What [`Access::revoke`] took back is good again, where the access file does not say otherwise. `false`: it was not taken
    /// back. Waits for the disk.
    pub fn restore(&self, id: &str) -> bool {
        // Another one may have taken it back just now.
        let _ = self.refresh_revoked();
        let was_there = self.revoked.remove(id);
        if was_there {
            self.save_revoked(SystemTime::now());
        }
        was_there
    }

    /// What others have written meanwhile is known then, too.
    fn save_revoked(&self, now: SystemTime) {
        self.revoked.save(now);
        self.generation.fetch_add(1, Relaxed);
    }

    /// The tokens that were taken back so.
    pub fn revoked(&self) -> Vec<(String, SystemTime)> {
        self.revoked.all()
    }

    /// What the log should be told of servers that are asked for keys, and of revocations that can't be kept, once.
    pub fn complaint(&self) -> Option<String> {
        self.revoked
            .complaint()
            .or_else(|| self.providers.complaint())
    }

    /// Whether what was allowed once still is.
    pub fn still(&self, proof: &Proof, wants: &[Want], now: SystemTime) -> Result<(), Refused> {
        self.rights(proof, now).may(wants)
    }

    /// Whether what was shown is good for anything yet. Who showed nothing has nothing to lose.
    pub fn still_knows(&self, proof: &Proof, now: SystemTime) -> Result<(), Refused> {
        match self.granted(&self.policy.load_full(), proof, now) {
            Ok(_) | Err(Refused::Nothing | Refused::Silent) => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// What a playlist names its segments with.
    pub fn segment_token(&self, stream: &str, now: SystemTime) -> String {
        segment::make(&self.segment_key(), stream, now)
    }

    /// Whether a playlist of that stream named a segment so.
    pub fn is_segment_token(&self, stream: &str, text: &str, now: SystemTime) -> bool {
        segment::is_good(&self.segment_key(), stream, text, now)
    }

    /// Of the secret where there is one: servers that share it take each other's.
    fn segment_key(&self) -> hmac::Key {
        match &self.policy.load().secret {
            Some(secret) => hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            None => self.random.clone(),
        }
    }

    /// How many passwords were hashed.
    pub fn hashed(&self) -> u64 {
        self.passwords.hashed()
    }
}

/// What may be done there without showing anything.
fn ambient(policy: &Policy, proof: &Proof, want: &Want) -> bool {
    let allow = |grants: &Grants| grants.allow(want.action, want.stream.as_deref());
    allow(&policy.anyone)
        || (proof.local && allow(&policy.loopback))
        || networks(policy, proof).any(allow)
}

/// The rules for where it is.
fn networks<'a>(policy: &'a Policy, proof: &Proof) -> impl Iterator<Item = &'a Grants> {
    let address = proof.address.filter(|_| proof.named);
    let address = address.map(|a| a.to_canonical());
    let there = move |network: &IpNet| address.is_some_and(|a| network.contains(&a));
    let rules = policy.networks.iter();
    rules
        .filter(move |(network, _)| there(network))
        .map(|(_, grants)| &**grants)
}

/// What somebody may do, by the rules of one moment.
#[derive(Debug)]
pub struct Rights {
    policy: Arc<Policy>,
    proof: Proof,
    shown: Result<Arc<Grants>, Refused>,
}

impl Rights {
    /// Whether all of it may be done.
    pub fn may(&self, wants: &[Want]) -> Result<(), Refused> {
        let mut left = wants
            .iter()
            .filter(|want| !ambient(&self.policy, &self.proof, want))
            .peekable();
        if left.peek().is_none() {
            return Ok(());
        }
        let grants = self.shown.as_ref().map_err(|why| *why)?;
        match left.all(|want| grants.allow(want.action, want.stream.as_deref())) {
            true => Ok(()),
            false => Err(Refused::NotThis),
        }
    }

    /// Whether it may be done with any stream at all.
    pub fn has(&self, action: Action) -> bool {
        let local = self.proof.local && self.policy.loopback.has(action);
        let shown = self.shown.as_ref().is_ok_and(|grants| grants.has(action));
        let mut networks = networks(&self.policy, &self.proof);
        local || shown || self.policy.anyone.has(action) || networks.any(|g| g.has(action))
    }
}

/// No more than was asked for.
fn of_wants(wants: &[Want]) -> Grants {
    wants.iter().fold(Grants::default(), |grants, want| {
        let pattern = match &want.stream {
            Some(stream) => Pattern::new(stream),
            None => Some(Pattern::all()),
        };
        match pattern {
            Some(pattern) => grants.with(want.action, pattern),
            None => grants,
        }
    })
}

impl Access {
    /// By what was shown.
    fn granted(
        &self,
        policy: &Policy,
        proof: &Proof,
        now: SystemTime,
    ) -> Result<Arc<Grants>, Refused> {
        match &proof.shown {
            None => Err(Refused::Nothing),
            Some(Shown::Key(digest)) => policy.keys.get(digest).cloned().ok_or(Refused::Unknown),
            Some(Shown::Token { text, .. }) => self
                .good_token(policy, text, now)
                .map(|t| Arc::new(t.grants)),
            Some(Shown::Asked { asker, wants, .. }) => {
                let hook = policy.webhook.as_ref().ok_or(Refused::Unknown)?;
                match self.webhooks.still(hook, asker, wants, Instant::now()) {
                    Verdict::Yes => Ok(Arc::new(of_wants(wants))),
                    Verdict::Silent => Err(Refused::Silent),
                    Verdict::No | Verdict::Unknown => Err(Refused::Unknown),
                }
            }
            Some(Shown::User { name, secret }) => {
                let user = policy.users.get(&**name);
                let same = |user: &&User| user.hash == *secret || user.ha1.as_ref() == Some(secret);
                let user = user.filter(same).ok_or(Refused::Unknown)?;
                let is_there = |address: IpAddr| {
                    let address = address.to_canonical();
                    user.from.iter().any(|network| network.contains(&address))
                };
                if !user.from.is_empty() && !proof.address.is_some_and(is_there) {
                    return Err(Refused::NotThis);
                }
                Ok(user.grants.clone())
            }
        }
    }

    fn good_token(&self, policy: &Policy, text: &str, now: SystemTime) -> Result<Token, Refused> {
        let token = self.read_token(policy, text, now)?;
        let id = token.id.as_deref().unwrap_or_default();
        if policy.revoked.contains(id) || self.revoked.has(id) {
            return Err(Refused::Revoked);
        }
        Ok(token)
    }

    fn read_token(
        &self,
        policy: &Policy,
        text: &str,
        now: SystemTime,
    ) -> Result<Token, TokenError> {
        let mut read = token::read(text, &policy.signers, now);
        for provider in &policy.providers {
            if read != Err(TokenError::Unsigned) {
                break;
            }
            if let Some(keys) = self.providers.of(provider) {
                read = token::read(text, &keys, now);
            }
        }
        if read == Err(TokenError::Unsigned) && !policy.providers.is_empty() {
            // Its key may be a new one.
            self.providers.missed();
        }
        read
    }
}
