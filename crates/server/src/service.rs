//! The models that are served.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::host::{Host, Hosted};

/// The models of a server, each ready to answer. Clones share them.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    hosts: Vec<Arc<Host>>,
    started: jiff::Timestamp,
}

impl Service {
    /// A service of these models, of which the first answers requests that name none.
    pub fn new(models: impl IntoIterator<Item = Hosted>) -> Self {
        let hosts = models.into_iter().map(|model| Arc::new(Host::start(model))).collect();
        Self(Arc::new(Inner { hosts, started: jiff::Timestamp::now() }))
    }

    pub(crate) fn hosts(&self) -> &[Arc<Host>] {
        &self.0.hosts
    }

    /// When it was started.
    pub(crate) fn started(&self) -> jiff::Timestamp {
        self.0.started
    }

    /// The model of this name, or the first if none is named.
    pub(crate) fn host(&self, name: Option<&str>) -> Result<&Arc<Host>> {
        let hosts = self.hosts();
        match name {
            None | Some("") => hosts.first().ok_or(Error::NoModels),
            Some(name) => hosts.iter().find(|host| host.is_called(name)).ok_or_else(|| Error::UnknownModel {
                name: name.chars().take(100).collect(),
                known: hosts.iter().map(|host| host.name().to_owned()).collect(),
            }),
        }
    }
}
