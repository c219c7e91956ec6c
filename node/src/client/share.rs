//! Links to give away.

use super::{Client, ClientError};
use crate::wire::{Share, ShareRequest};

impl Client {
    /// Makes a link that lets whoever has it read a path.
    pub async fn share(&self, request: &ShareRequest) -> Result<Share, ClientError> {
        self.post("/api/v1/share", request).await
    }
}
