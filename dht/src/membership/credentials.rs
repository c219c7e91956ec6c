//! What a node keeps to be a member: its pass, and the grant if it may invite.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use biscuit_auth::error;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::Revocations;
use super::rights::{Right, Rights};
use super::token::{Refusal, SwarmId, Token, Verified};

/// The layout of the file; a node refuses one that it does not know.
const VERSION: u8 = 1;

/// A node's membership in one swarm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Credentials {
    version: u8,
    swarm: SwarmId,
    /// Shown at the gate; sealed to this node's PeerId.
    pass: Token,
    /// A bearer token from which others are made; shown to nobody.
    grant: Option<Token>,
    /// Whether the pass comes straight from a ticket, and so ends with it, until a member enrols this node.
    provisional: bool,
}

/// What a member hands to a newcomer in place of the ticket's own, expiring token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enrolment {
    pass: Token,
    grant: Option<Token>,
}

/// Why credentials could not be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// This node may not invite.
    #[error("this node's membership does not allow it to invite others")]
    MayNotInvite,
    /// The wanted rights exceed those of this node.
    #[error("this node cannot give {wanted:?}: it does not have them all itself")]
    MoreThanOwn {
        /// What was asked for.
        wanted: Rights,
    },
    /// The ticket lets nobody in, at least not this node.
    #[error("the ticket is not valid for this node: {0}")]
    BadTicket(#[source] Refusal),
    /// The token library refused.
    #[error("cannot make a token")]
    Token(#[source] error::Token),
    /// The file could not be read or written.
    #[error("cannot {action} the membership in {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is damaged or of an unknown version.
    #[error("{path} is damaged or was written by a newer version")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl From<error::Token> for CredentialsError {
    fn from(error: error::Token) -> Self {
        Self::Token(error)
    }
}

impl Credentials {
    /// Founds a new swarm with `peer` as its first member.
    pub fn found(peer: PeerId) -> Result<Self, CredentialsError> {
        let (swarm, grant) = Token::found()?;
        let pass = grant.restrict_peer(swarm, peer)?.seal(swarm)?;
        Ok(Self { version: VERSION, swarm, pass, grant: Some(grant), provisional: false })
    }

    /// Provisional membership by a ticket's token, checked first, so that a bad ticket fails here with its reason.
    pub fn from_invite(swarm: SwarmId, invite: &Token, peer: PeerId) -> Result<Self, CredentialsError> {
        invite
            .verify(swarm, peer, SystemTime::now(), &Revocations::default())
            .map_err(CredentialsError::BadTicket)?;
        let pass = invite.restrict_peer(swarm, peer)?.seal(swarm)?;
        Ok(Self { version: VERSION, swarm, pass, grant: None, provisional: true })
    }

    /// A bearer token with `rights` until `expires`, for `only` if given: what a ticket carries.
    pub fn invite(
        &self,
        rights: Rights,
        expires: SystemTime,
        only: Option<PeerId>,
    ) -> Result<Token, CredentialsError> {
        let grant = self.grant_for(rights)?;
        let mut token = grant.restrict_rights(self.swarm, rights)?.expire_at(self.swarm, expires)?;
        if let Some(peer) = only {
            token = token.restrict_peer(self.swarm, peer)?;
        }
        Ok(token)
    }

    /// Lasting membership with `rights` for a newcomer that a ticket has let in.
    pub fn enrol(&self, newcomer: PeerId, rights: Rights) -> Result<Enrolment, CredentialsError> {
        let grant = self.grant_for(rights)?.restrict_rights(self.swarm, rights)?;
        let pass = grant.restrict_peer(self.swarm, newcomer)?.seal(self.swarm)?;
        let grant = rights.contains(Right::Invite).then_some(grant);
        Ok(Enrolment { pass, grant })
    }

    /// Takes an enrolment in place of the ticket's token, once it proves to be at least as good.
    pub fn accept(&mut self, enrolment: Enrolment, peer: PeerId) -> Result<(), CredentialsError> {
        let Enrolment { pass, grant } = enrolment;
        let verify =
            |token: &Token| token.verify(self.swarm, peer, SystemTime::now(), &Revocations::default());
        let offered = verify(&pass).map_err(CredentialsError::BadTicket)?;
        let current = verify(&self.pass).map(|verified| verified.rights).unwrap_or_default();
        if !offered.rights.covers(current) {
            return Err(CredentialsError::MoreThanOwn { wanted: current });
        }
        if let Some(grant) = &grant {
            verify(grant).map_err(CredentialsError::BadTicket)?;
        }
        (self.pass, self.grant, self.provisional) = (pass, grant, false);
        Ok(())
    }

    /// The swarm that this is a membership of.
    pub fn swarm(&self) -> SwarmId {
        self.swarm
    }

    /// What the gate shows.
    pub fn pass(&self) -> &Token {
        &self.pass
    }

    /// Whether a member should still be asked for lasting membership.
    pub fn is_provisional(&self) -> bool {
        self.provisional
    }

    /// What this node itself may do, as its pass says.
    pub fn verified(&self, peer: PeerId, revocations: &Revocations) -> Result<Verified, Refusal> {
        self.pass.verify(self.swarm, peer, SystemTime::now(), revocations)
    }

    /// Reads the membership kept in `path`; `None` when there is none.
    pub fn load(path: &Path) -> Result<Option<Self>, CredentialsError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(CredentialsError::File { action: "read", path: path.to_owned(), source });
            }
        };
        match postcard::from_bytes::<Self>(&bytes) {
            Ok(credentials) if credentials.version == VERSION => Ok(Some(credentials)),
            _ => Err(CredentialsError::Damaged { path: path.to_owned() }),
        }
    }

    /// Keeps the membership in `path`, mode 0600; a crash leaves the old file or the new one.
    pub fn save(&self, path: &Path) -> Result<(), CredentialsError> {
        let failed = |source| CredentialsError::File { action: "write", path: path.to_owned(), source };
        let bytes = postcard::to_stdvec(self).map_err(io::Error::other).map_err(failed)?;
        let temporary = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&temporary, path).map_err(failed)
    }

    fn grant_for(&self, rights: Rights) -> Result<&Token, CredentialsError> {
        let grant = self.grant.as_ref().ok_or(CredentialsError::MayNotInvite)?;
        // The grant is a bearer token, so any PeerId will do to ask what it allows.
        let own = grant
            .verify(self.swarm, PeerId::random(), SystemTime::now(), &Revocations::default())
            .map_err(CredentialsError::BadTicket)?
            .rights;
        if own.covers(rights) { Ok(grant) } else { Err(CredentialsError::MoreThanOwn { wanted: rights }) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Role;
    use super::*;

    fn in_an_hour() -> SystemTime {
        SystemTime::now() + Duration::from_secs(3600)
    }

    #[test]
    fn membership_passes_on_without_the_founder() {
        let (founder, second, third) = (PeerId::random(), PeerId::random(), PeerId::random());
        let first = Credentials::found(founder).unwrap();
        let ticket = first.invite(Role::Peer.rights(), in_an_hour(), None).unwrap();
        let mut member = Credentials::from_invite(first.swarm(), &ticket, second).unwrap();
        assert!(member.is_provisional());
        member.accept(first.enrol(second, Role::Peer.rights()).unwrap(), second).unwrap();
        drop(first);

        let ticket = member.invite(Role::Worker.rights(), in_an_hour(), None).unwrap();
        let newcomer = Credentials::from_invite(member.swarm(), &ticket, third).unwrap();
        let rights = newcomer.verified(third, &Revocations::default()).unwrap().rights;
        assert_eq!(rights, Role::Worker.rights());
    }

    #[test]
    fn a_worker_neither_invites_nor_gains_rights() {
        let (founder, worker) = (PeerId::random(), PeerId::random());
        let first = Credentials::found(founder).unwrap();
        let ticket = first.invite(Role::Worker.rights(), in_an_hour(), None).unwrap();
        let mut credentials = Credentials::from_invite(first.swarm(), &ticket, worker).unwrap();
        credentials.accept(first.enrol(worker, Role::Worker.rights()).unwrap(), worker).unwrap();
        let refused = credentials.invite(Role::Worker.rights(), in_an_hour(), None);
        assert!(matches!(refused, Err(CredentialsError::MayNotInvite)));
    }

    #[test]
    fn a_member_cannot_give_more_than_it_has() {
        let (founder, second) = (PeerId::random(), PeerId::random());
        let first = Credentials::found(founder).unwrap();
        let ticket = first.invite(Role::Member.rights(), in_an_hour(), None).unwrap();
        let mut member = Credentials::from_invite(first.swarm(), &ticket, second).unwrap();
        member.accept(first.enrol(second, Role::Member.rights()).unwrap(), second).unwrap();
        let refused = member.invite(Role::Peer.rights(), in_an_hour(), None);
        assert!(matches!(refused, Err(CredentialsError::MoreThanOwn { .. })));
    }

    #[test]
    fn bad_passes_are_refused_each_for_its_reason() {
        let (founder, guest) = (PeerId::random(), PeerId::random());
        let (swarm, other) = (Credentials::found(founder).unwrap(), Credentials::found(founder).unwrap());
        let none = Revocations::default();
        let verify =
            |token: &Token| token.verify(swarm.swarm(), guest, SystemTime::now(), &none).unwrap_err();

        let rights = Role::Peer.rights();
        let expired = swarm.invite(rights, SystemTime::now() - Duration::from_secs(1), None).unwrap();
        assert_eq!(verify(&expired), Refusal::Expired);
        let for_another = swarm.invite(rights, in_an_hour(), Some(founder)).unwrap();
        assert_eq!(verify(&for_another), Refusal::NotYours(guest));
        assert_eq!(verify(&other.invite(rights, in_an_hour(), None).unwrap()), Refusal::BadSignature);
        assert_eq!(verify(&Token::from_bytes(b"garbage".to_vec())), Refusal::Malformed);
        assert_eq!(verify(&Token::from_bytes(Vec::new())), Refusal::Malformed);
        assert_eq!(verify(&Token::from_bytes(vec![0; 5000])), Refusal::TooLong(5000));

        let good = swarm.invite(rights, in_an_hour(), None).unwrap();
        for position in [10, good.as_bytes().len() / 2, good.as_bytes().len() - 10] {
            let mut tampered = good.as_bytes().to_vec();
            tampered[position] ^= 1;
            assert!(
                Token::from_bytes(tampered).verify(swarm.swarm(), guest, SystemTime::now(), &none).is_err(),
                "a flipped bit at {position} went unnoticed"
            );
        }
    }

    #[test]
    fn revoking_a_ticket_revokes_what_was_made_from_it() {
        let (founder, guest) = (PeerId::random(), PeerId::random());
        let swarm = Credentials::found(founder).unwrap();
        let ticket = swarm.invite(Role::Peer.rights(), in_an_hour(), None).unwrap();
        let credentials = Credentials::from_invite(swarm.swarm(), &ticket, guest).unwrap();
        let revocations = Revocations::default();
        assert!(credentials.verified(guest, &revocations).is_ok());
        revocations.revoke_token(ticket.revocation_id(swarm.swarm()).unwrap());
        assert_eq!(credentials.verified(guest, &revocations).unwrap_err(), Refusal::Revoked);
    }

    #[test]
    fn credentials_survive_a_restart_and_notice_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("membership");
        assert!(Credentials::load(&path).unwrap().is_none());
        let credentials = Credentials::found(PeerId::random()).unwrap();
        credentials.save(&path).unwrap();
        assert_eq!(Credentials::load(&path).unwrap().unwrap().swarm(), credentials.swarm());
        fs::write(&path, b"garbage").unwrap();
        assert!(matches!(Credentials::load(&path), Err(CredentialsError::Damaged { .. })));
    }
}
