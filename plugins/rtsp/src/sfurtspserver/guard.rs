// SPDX-License-Identifier: MPL-2.0

//! Who may watch, by the same rules as everywhere (docs/access.md): asked where a player looks a stream up, on the player's
//! thread, which may wait. A connection that shows nothing good ends as soon as what let it in does.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use gst_rtsp::{RTSPAuthCredential, RTSPAuthMethod, RTSPHeaderField, RTSPStatusCode};
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::subclass::prelude::*;
use gst_rtsp_server::{RTSP_AUTH_CHECK_MEDIA_FACTORY_ACCESS, RTSPAuth, RTSPContext};
use sfu_access::{
    Action, Credential, DigestAnswer, Door, Nonces, REALM, Refused, Visitor, credential_of_query,
};

use super::CAT;
use super::auth_param;
use super::callers::Callers;
use super::imp::lock;
use super::location::Location;
use super::settings::{Auth, Settings};
use super::users::viewer;

/// Streams that one connection may look up.
const PASSES: usize = 32;
/// The library does not tell which of them a request is.
const METHODS: [&str; 4] = ["DESCRIBE", "SETUP", "PLAY", "OPTIONS"];

/// Asks the rules.
#[derive(Debug)]
pub(super) struct Gate {
    door: Door,
    nonces: Nonces,
    auth: Auth,
    callers: Arc<Callers>,
}

impl Gate {
    pub(super) fn open(settings: &Settings, callers: &Arc<Callers>) -> Result<Arc<Self>, String> {
        let warn = |why: &str| gst::warning!(CAT, "{why}");
        let door = Door::open(&settings.access, warn).map_err(|e| format!("access: {e}"))?;
        gst::info!(CAT, "who may watch: {}", door.summary());
        Ok(Arc::new(Self {
            door,
            nonces: Nonces::new()?,
            auth: settings.auth,
            callers: Arc::clone(callers),
        }))
    }

    /// Ends the connections of whom the rules don't let in any more. May wait for a disk.
    pub(super) fn look(&self) {
        for (client, passes) in self.callers.passes() {
            let mut passes = lock(&passes);
            let over = passes
                .iter_mut()
                .find_map(|pass| self.door.still(pass).err());
            drop(passes);
            if let Some(why) = over {
                gst::info!(CAT, "a player's connection has ended: {why}");
                client.close();
            }
        }
    }

    fn asks(&self, context: &RTSPContext) -> Result<(), Refused> {
        let client = context.client().ok_or(Refused::Nothing)?;
        let uri = context.uri().ok_or(Refused::Nothing)?.request_uri();
        // What names no stream is looked for nowhere, and needs what may play all of them.
        let location = Location::parse(&uri);
        let stream = location.map_or_else(String::new, |(location, _)| location.stream);
        let (address, passes) = self.callers.of(client).ok_or(Refused::Nothing)?;
        {
            let mut passes = lock(&passes);
            if let Some(pass) = passes.iter_mut().find(|pass| pass.stream() == stream) {
                return self.door.still(pass);
            }
            if passes.len() >= PASSES {
                return Err(Refused::Busy);
            }
        }
        let shown = self.shown(context, address);
        let query = uri.split_once('?').map_or("", |(_, query)| query);
        let credential = match &shown {
            Some(shown) => Some(shown.credential()),
            None => credential_of_query(query),
        };
        let visitor = Visitor {
            address: Some(address),
            local: address.to_canonical().is_loopback(),
            named: true,
            credential,
            protocol: "rtsp",
        };
        let pass = self.door.admit(&visitor, Action::Play, &stream)?;
        lock(&passes).push(pass);
        Ok(())
    }

    /// Whether it may, remembering why not for the answer.
    fn lets_in(&self, context: &RTSPContext) -> bool {
        let Err(why) = self.asks(context) else {
            return true;
        };
        if let Some(client) = context.client() {
            self.callers.refuse(client, why);
        }
        gst::info!(CAT, "a player is refused: {why}");
        false
    }

    /// What a player shows in its header.
    fn shown(&self, context: &RTSPContext, address: IpAddr) -> Option<Shown> {
        let credentials = context.request()?.parse_auth_credentials();
        let shown = credentials.first().and_then(Shown::read)?;
        match &shown {
            Shown::Basic { .. } => (self.auth != Auth::Digest).then_some(shown),
            // An old nonce is no wrong password: it gets a new one.
            Shown::Digest { nonce, .. } => {
                let now = SystemTime::now();
                let is_good = self.nonces.is_good(nonce, Some(address), now);
                (self.auth != Auth::Basic && is_good).then_some(shown)
            }
        }
    }

    /// What a refused player is told, and how it may ask again.
    fn explain(&self, context: &RTSPContext) {
        let known = context
            .client()
            .and_then(|client| self.callers.refusal(client));
        let (Some((address, why)), Some(response)) = (known, context.response()) else {
            return;
        };
        let status = match why {
            Refused::NotThis => RTSPStatusCode::Forbidden,
            Refused::Later(_) | Refused::Busy | Refused::Silent => {
                RTSPStatusCode::ServiceUnavailable
            }
            Refused::Nothing | Refused::Token(_) | Refused::Revoked | Refused::Unknown => {
                let digest = match self.auth {
                    Auth::Digest => true,
                    Auth::Basic => false,
                    // Players that are asked for both take Digest, which a token is no answer to.
                    Auth::Both => self.door.is_digest_enough(),
                };
                if digest {
                    let nonce = self.nonces.make(Some(address), SystemTime::now());
                    let ask = format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\"");
                    response.add_header(RTSPHeaderField::WwwAuthenticate, &ask);
                }
                if self.auth != Auth::Digest {
                    let ask = format!("Basic realm=\"{REALM}\"");
                    response.add_header(RTSPHeaderField::WwwAuthenticate, &ask);
                }
                return;
            }
        };
        response.init_response(status, context.request());
    }
}

enum Shown {
    Basic {
        user: String,
        password: String,
    },
    Digest {
        user: String,
        nonce: String,
        uri: String,
        response: String,
    },
}

impl Shown {
    fn read(credential: &RTSPAuthCredential) -> Option<Self> {
        if credential.scheme() == RTSPAuthMethod::Basic {
            let octets = glib::base64_decode(credential.authorization()?);
            let text = String::from_utf8(octets).ok()?;
            let (user, password) = text.split_once(':')?;
            return Some(Self::Basic {
                user: user.to_owned(),
                password: password.to_owned(),
            });
        }
        let params = credential.params();
        let field = |name: &str| {
            let mut fields = params.iter().filter_map(auth_param::read);
            let (_, value) = fields.find(|(n, _)| *n == name)?;
            Some(value.trim_matches('"').to_owned())
        };
        Some(Self::Digest {
            user: field("username")?,
            nonce: field("nonce")?,
            uri: field("uri")?,
            response: field("response")?,
        })
    }

    fn credential(&self) -> Credential<'_> {
        match self {
            Self::Basic { user, password } => Credential::Basic { user, password },
            Self::Digest {
                user,
                nonce,
                uri,
                response,
            } => Credential::Digest(DigestAnswer {
                user,
                nonce,
                uri,
                response,
                methods: &METHODS,
            }),
        }
    }
}

/// What the library asks.
#[derive(Debug, Default)]
pub struct Guard {
    gate: OnceLock<Arc<Gate>>,
}

#[glib::object_subclass]
impl ObjectSubclass for Guard {
    const NAME: &'static str = "GstSfuRtspGuard";
    type Type = RulesAuth;
    type ParentType = RTSPAuth;
}

impl ObjectImpl for Guard {}

impl RTSPAuthImpl for Guard {
    /// Who may has its role before this is called.
    fn authenticate(&self, _context: &RTSPContext) -> bool {
        true
    }

    fn check(&self, context: &RTSPContext, check: &glib::GString) -> bool {
        let is_asked = check.as_gstr() == RTSP_AUTH_CHECK_MEDIA_FACTORY_ACCESS;
        if is_asked && self.gate.get().is_some_and(|gate| gate.lets_in(context)) {
            context.set_token(viewer());
        }
        // Who has no role is told so by this.
        self.parent_check(context, check)
    }

    fn generate_authenticate_header(&self, context: &RTSPContext) {
        if let Some(gate) = self.gate.get() {
            gate.explain(context);
        }
    }
}

glib::wrapper! {
    pub struct RulesAuth(ObjectSubclass<Guard>)
        @extends RTSPAuth;
}

impl RulesAuth {
    pub(super) fn new(gate: &Arc<Gate>) -> Self {
        let auth: Self = glib::Object::new();
        let _ = auth.imp().gate.set(Arc::clone(gate));
        auth
    }
}
