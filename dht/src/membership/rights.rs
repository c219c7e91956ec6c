//! The rights a token can carry, and the roles that bundle them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One thing a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Right {
    /// Connect at all.
    Join,
    /// Issue tickets and enrol newcomers.
    Invite,
    /// Write files and memory.
    Store,
    /// Submit and run tasks.
    Compute,
    /// Revoke tokens and members.
    Admin,
}

impl Right {
    /// Every right, in the order of their bits.
    pub const ALL: [Self; 5] = [Self::Join, Self::Invite, Self::Store, Self::Compute, Self::Admin];

    /// The right's name inside tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Store => "store",
            Self::Compute => "compute",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Join => 1,
            Self::Invite => 1 << 1,
            Self::Store => 1 << 2,
            Self::Compute => 1 << 3,
            Self::Admin => 1 << 4,
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights(u8);

impl Rights {
    /// Whether `right` is among them.
    pub fn contains(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Whether all of `other` are among them.
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The rights in order.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.contains(*right))
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |bits, right| bits | right.bit()))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter().map(Right::as_str)).finish()
    }
}

/// The bundles of rights that `starfish invite --role` offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything: as good as the founder. The default, since nobody leads.
    #[default]
    Peer,
    /// Everything but revoking others.
    Member,
    /// Stores and computes, but neither invites nor revokes.
    Worker,
}

impl Role {
    /// What the role may do.
    pub fn rights(self) -> Rights {
        let without =
            |missing: &[Right]| Right::ALL.into_iter().filter(|right| !missing.contains(right)).collect();
        match self {
            Self::Peer => without(&[]),
            Self::Member => without(&[Right::Admin]),
            Self::Worker => without(&[Right::Admin, Right::Invite]),
        }
    }
}

/// The text names no role.
#[derive(Debug, thiserror::Error)]
#[error("unknown role {0:?}; roles are peer, member and worker")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "peer" => Ok(Self::Peer),
            "member" => Ok(Self::Member),
            "worker" => Ok(Self::Worker),
            other => Err(UnknownRole(other.to_owned())),
        }
    }
}
