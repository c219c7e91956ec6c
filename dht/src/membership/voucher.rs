//! A voucher: a member's word that whoever bears it may read one thing, until a certain time.
//!
//! It is a Biscuit under the issuing member's own key, next to the public half of that key, and sealed, so nothing can be
//! added to it. (What else the key signs begins with a context of its own, so nothing passes for the other.) It is no pass: the gate asks for tokens under the swarm's root, and this is none. Nor is it worth
//! anything by itself: who checks it needs the issuer's pass, which shows that the issuer is a member that may let
//! others in. So a voucher ends with its time, when it is revoked, and when its issuer is.
//!
//! What it opens is a name with everything below it: `/a` opens `/a` and `/a/b`, not `/ab`. This crate does not know what
//! the names mean; they must be free of `.` and `..`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use biscuit_auth::builder::{AuthorizerBuilder, Term};
use biscuit_auth::{Algorithm, Biscuit, KeyPair, PrivateKey, PublicKey, error};
use data_encoding::BASE64URL_NOPAD;
use libp2p::PeerId;

use super::revocation::Revocations;
use super::rights::Right;
use super::token::{LIMITS, Refusal, SwarmId, Token, describe};
use crate::identity::{Identity, key_of, peer_of};

/// The first byte; another is a form that this version does not know.
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// The longest voucher that is looked at, in bytes: the longest name twice, and some hundred bytes around it.
const MAX_BYTES: usize = 9 << 10;

/// Whoever bears it may read one thing. Nothing is known about it until [`Voucher::check`] says so.
#[derive(Clone, PartialEq, Eq)]
pub struct Voucher {
    issuer: PeerId,
    token: Vec<u8>,
}

/// A voucher whose issuer and signature are good. What it opens is still to be asked.
#[derive(Debug)]
pub struct Good {
    biscuit: Biscuit,
    now: SystemTime,
}

/// Why no voucher was made.
#[derive(Debug, thiserror::Error)]
pub enum VoucherError {
    /// The key signs no such thing.
    #[error("this node's key cannot sign a voucher")]
    Key,
    /// The token library refused.
    #[error("cannot make a voucher")]
    Token(#[from] error::Token),
}

/// Why a voucher is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoucherRefusal {
    /// The text or its bytes are no voucher.
    #[error("this is no voucher, or not all of it")]
    Malformed,
    /// The issuer's pass is bad: it was revoked, or is of another swarm, or was never a member.
    #[error("who made the voucher is not a member of this swarm")]
    Issuer(#[source] Refusal),
    /// The issuer is a member, and may not let others in.
    #[error("who made the voucher may not let others in")]
    MayNot,
    /// It was changed, or its issuer did not sign it.
    #[error("the voucher was tampered with")]
    BadSignature,
    /// It, though not its issuer, was revoked.
    #[error("the voucher is revoked")]
    Revoked,
    /// Its time has passed.
    #[error("the voucher has expired")]
    Expired,
    /// It opens something else.
    #[error("the voucher does not open this")]
    Elsewhere,
}

impl Voucher {
    /// A voucher for `name` and everything below it, good until `end`.
    pub fn issue(issuer: &Identity, name: &str, end: SystemTime) -> Result<Self, VoucherError> {
        let secret = issuer.secret().ok_or(VoucherError::Key)?;
        let secret = PrivateKey::from_bytes(secret.as_ref(), Algorithm::Ed25519);
        let secret = secret.map_err(error::Token::Format)?;
        let end = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let below = format!("{}/", name.trim_end_matches('/'));
        let token = Biscuit::builder()
            .code_with_params(
                "check if time($time), $time < {end};
                check if read($name), $name == {name} || $name.starts_with({below});",
                HashMap::from([
                    ("end".to_owned(), Term::Date(end)),
                    ("name".to_owned(), Term::Str(name.to_owned())),
                    ("below".to_owned(), Term::Str(below)),
                ]),
                HashMap::new(),
            )?
            .build(&KeyPair::from(&secret))?
            .seal()?;
        Ok(Self { issuer: issuer.peer_id(), token: token.to_vec()? })
    }

    /// Who signed it, as it says.
    pub fn issuer(&self) -> PeerId {
        self.issuer
    }

    /// Checks the issuer, by the `pass` that is known of it, and the signature.
    pub fn check(
        &self,
        pass: &Token,
        swarm: SwarmId,
        now: SystemTime,
        revocations: &Revocations,
    ) -> Result<Good, VoucherRefusal> {
        // First, so that only members' tokens are ever evaluated.
        let issuer =
            pass.verify(swarm, self.issuer, now, revocations).map_err(VoucherRefusal::Issuer)?.rights;
        if !issuer.contains(Right::Invite) {
            return Err(VoucherRefusal::MayNot);
        }
        let biscuit = self.parse()?;
        if revocations.is_any_token_revoked(&biscuit.revocation_identifiers()) {
            return Err(VoucherRefusal::Revoked);
        }
        Ok(Good { biscuit, now })
    }

    /// The identifier by which this voucher alone is revoked.
    pub fn revocation_id(&self) -> Option<Vec<u8>> {
        self.parse().ok()?.revocation_identifiers().pop()
    }

    fn parse(&self) -> Result<Biscuit, VoucherRefusal> {
        let key = key_of(&self.issuer).ok_or(VoucherRefusal::Malformed)?;
        let key = PublicKey::from_bytes(&key, Algorithm::Ed25519).map_err(|_| VoucherRefusal::Malformed)?;
        Biscuit::from(&self.token, key).map_err(|error| match error {
            error::Token::Format(error::Format::Signature(_)) => VoucherRefusal::BadSignature,
            _ => VoucherRefusal::Malformed,
        })
    }
}

impl Good {
    /// Whether it opens `name`, and still does.
    pub fn opens(&self, name: &str) -> Result<(), VoucherRefusal> {
        let seconds = self.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let facts = HashMap::from([
            ("now".to_owned(), Term::Date(seconds)),
            ("name".to_owned(), Term::Str(name.to_owned())),
        ]);
        let refused = |error: error::Token| match describe(&error).as_str() {
            // Who comes too late is told nothing else.
            failed if failed.starts_with("check if time(") => VoucherRefusal::Expired,
            _ => VoucherRefusal::Elsewhere,
        };
        let mut authorizer = AuthorizerBuilder::new()
            .code_with_params("time({now}); read({name}); allow if true;", facts, HashMap::new())
            .and_then(|builder| builder.set_limits(LIMITS).build(&self.biscuit))
            .map_err(refused)?;
        authorizer.authorize_with_limits(LIMITS).map(drop).map_err(refused)
    }
}

impl fmt::Display for Voucher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = key_of(&self.issuer).ok_or(fmt::Error)?;
        let bytes = [&[VERSION], &key[..], &self.token].concat();
        formatter.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Voucher {
    type Err = VoucherRefusal;

    fn from_str(text: &str) -> Result<Self, VoucherRefusal> {
        if text.len() > MAX_BYTES * 4 / 3 {
            return Err(VoucherRefusal::Malformed);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| VoucherRefusal::Malformed)?;
        let (VERSION, rest) = bytes.split_first().map(|(&first, rest)| (first, rest)).unwrap_or_default()
        else {
            return Err(VoucherRefusal::Malformed);
        };
        let (key, token) = rest.split_at_checked(KEY_BYTES).ok_or(VoucherRefusal::Malformed)?;
        let issuer = peer_of(key).ok_or(VoucherRefusal::Malformed)?;
        Ok(Self { issuer, token: token.to_vec() })
    }
}

impl fmt::Debug for Voucher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A bearer token is a secret.
        formatter.debug_struct("Voucher").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Credentials, Role};
    use super::*;

    /// A member that founded its swarm.
    struct Member {
        identity: Identity,
        credentials: Credentials,
        revocations: Revocations,
    }

    impl Member {
        fn new() -> Self {
            let identity = Identity::generate();
            let credentials = Credentials::found(identity.peer_id()).unwrap();
            Self { identity, credentials, revocations: Revocations::default() }
        }

        fn issue(&self, name: &str) -> Voucher {
            Voucher::issue(&self.identity, name, in_an_hour()).unwrap()
        }

        fn check_at(&self, voucher: &Voucher, now: SystemTime) -> Result<Good, VoucherRefusal> {
            voucher.check(self.credentials.pass(), self.credentials.swarm(), now, &self.revocations)
        }

        fn check(&self, voucher: &Voucher) -> Result<Good, VoucherRefusal> {
            self.check_at(voucher, SystemTime::now())
        }
    }

    fn in_an_hour() -> SystemTime {
        SystemTime::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_voucher_opens_its_name_and_what_is_below_and_nothing_else() {
        let ada = Member::new();
        let copied: Voucher = ada.issue("/docs/a b").to_string().parse().unwrap();
        let good = ada.check(&copied).unwrap();
        for name in ["/docs/a b", "/docs/a b/c", "/docs/a b/c/d"] {
            assert_eq!(good.opens(name), Ok(()), "{name}");
        }
        for name in ["/", "/docs", "/docs/", "/docs/a", "/docs/a bc", "/docs/a b.bak", "docs/a b", ""] {
            assert_eq!(good.opens(name), Err(VoucherRefusal::Elsewhere), "{name}");
        }
        let everything = ada.check(&ada.issue("/")).unwrap();
        assert_eq!((everything.opens("/"), everything.opens("/a/b")), (Ok(()), Ok(())));
    }

    #[test]
    fn a_name_cannot_say_more_than_a_name() {
        let ada = Member::new();
        let name = "/a\" || true || \"\\\n{end}";
        let good = ada.check(&ada.issue(name)).unwrap();
        assert_eq!(good.opens(name), Ok(()));
        assert_eq!(good.opens("/b"), Err(VoucherRefusal::Elsewhere));
    }

    #[test]
    fn a_voucher_ends_with_its_time() {
        let ada = Member::new();
        let voucher = ada.issue("/a");
        let late = ada.check_at(&voucher, in_an_hour() + Duration::from_secs(1)).unwrap();
        assert_eq!(late.opens("/a"), Err(VoucherRefusal::Expired));
        assert_eq!(late.opens("/b"), Err(VoucherRefusal::Expired), "it says no more than that");
    }

    #[test]
    fn a_voucher_that_was_changed_anywhere_is_worth_nothing() {
        let ada = Member::new();
        let bytes = BASE64URL_NOPAD.decode(ada.issue("/docs/report").to_string().as_bytes()).unwrap();
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            let changed = BASE64URL_NOPAD.encode(&changed).parse::<Voucher>();
            let opened = changed.and_then(|voucher| ada.check(&voucher)?.opens("/docs/report"));
            assert!(opened.is_err(), "a flipped bit at {position} went unnoticed");
        }
        for text in ["", "AA", "AQ", "not a voucher", &"A".repeat(50_000)] {
            assert_eq!(text.parse::<Voucher>(), Err(VoucherRefusal::Malformed));
        }
    }

    #[test]
    fn nobody_signs_for_another() {
        let (ada, eve) = (Member::new(), Member::new());
        let forged = Voucher { issuer: ada.identity.peer_id(), ..eve.issue("/a") };
        assert_eq!(ada.check(&forged).unwrap_err(), VoucherRefusal::BadSignature);
        // Another's pass is of no use: it is sealed to that other.
        let refused = ada.check(&eve.issue("/a")).unwrap_err();
        assert!(matches!(refused, VoucherRefusal::Issuer(Refusal::NotYours(_))), "{refused:?}");
        let outside = eve.issue("/a").check(
            eve.credentials.pass(),
            ada.credentials.swarm(),
            SystemTime::now(),
            &ada.revocations,
        );
        assert_eq!(outside.unwrap_err(), VoucherRefusal::Issuer(Refusal::BadSignature));
    }

    #[test]
    fn a_member_that_was_revoked_takes_its_vouchers_along() {
        let ada = Member::new();
        let voucher = ada.issue("/a");
        assert!(ada.check(&voucher).is_ok());
        ada.revocations.revoke_peer(ada.identity.peer_id());
        assert_eq!(ada.check(&voucher).unwrap_err(), VoucherRefusal::Issuer(Refusal::Revoked));
    }

    #[test]
    fn one_voucher_can_be_revoked_and_others_stay() {
        let ada = Member::new();
        let (gone, stays) = (ada.issue("/a"), ada.issue("/a"));
        ada.revocations.revoke_token(gone.revocation_id().unwrap());
        assert_eq!(ada.check(&gone).unwrap_err(), VoucherRefusal::Revoked);
        assert!(ada.check(&stays).is_ok());
    }

    #[test]
    fn who_may_not_invite_may_not_vouch() {
        let ada = Member::new();
        let worker = Identity::generate();
        let ticket = ada.credentials.invite(Role::Worker.rights(), in_an_hour(), None).unwrap();
        let member = Credentials::from_invite(ada.credentials.swarm(), &ticket, worker.peer_id()).unwrap();
        let voucher = Voucher::issue(&worker, "/a", in_an_hour()).unwrap();
        let refused = voucher.check(member.pass(), member.swarm(), SystemTime::now(), &ada.revocations);
        assert_eq!(refused.unwrap_err(), VoucherRefusal::MayNot);
    }

    #[test]
    fn a_voucher_opens_no_gate() {
        let ada = Member::new();
        let token = Token::from_bytes(ada.issue("/a").token);
        let peer = PeerId::random();
        let refused = token.verify(ada.credentials.swarm(), peer, SystemTime::now(), &ada.revocations);
        assert_eq!(refused.unwrap_err(), Refusal::BadSignature);
    }
}
