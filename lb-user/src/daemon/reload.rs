//! The configuration, taken anew while everything runs.

use super::{Daemon, failure, notify, watch};
use crate::{
    config::Config,
    exit::{Exit, Failure, fail},
    observe::{reader::unix_time, snapshot::Reload},
};

impl Daemon {
    /// Takes the configuration anew; one with a fault changes nothing.
    pub(super) fn reload(&mut self) -> Result<String, Failure> {
        notify::reloading();
        let result = self.args.configuration().and_then(|config| self.take(config));
        let error = result.as_ref().err().map(Failure::render);
        match &error {
            Some(error) => tracing::error!("the configuration was not taken; what runs is as it was: {error}"),
            None => tracing::info!("the configuration was read anew"),
        }
        self.last_reload = Some(Reload { at: unix_time(), error });
        notify::ready();
        result
    }

    fn take(&mut self, config: Config) -> Result<String, Failure> {
        if config.limits != self.config.limits {
            return Err(fail(
                Exit::Configuration,
                "`limits` sizes the kernel's maps, which cannot be resized while they are in use",
                "put the old limits back, or end with `weir stop` and start anew",
            ));
        }
        let (now, later) = (&self.config.daemon, &config.daemon);
        let waits =
            (now.metrics_listen != later.metrics_listen || now.web_config != later.web_config || now.flow_hash_key != later.flow_hash_key)
                .then_some("; `metrics_listen`, `web_config` and `flow_hash_key` wait for a new start");
        let before = std::mem::replace(&mut self.config, config);
        let attached = self.interfaces().and_then(|attached| {
            self.attached = attached;
            self.attach()?;
            self.relieve()
        });
        if let Err(failure) = attached {
            self.config = before;
            if let Ok(attached) = self.interfaces() {
                self.attached = attached;
            }
            return Err(failure);
        }
        if self.config.observe != before.observe {
            self.attach_watchers();
            self.watcher = watch::Watcher::new();
        }
        self.guard.check_soon();
        self.scan();
        let count = |number: usize, what: &str| if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") };
        let (services, interfaces) = (count(self.plan.services.len(), "service"), count(self.attached.len(), "interface"));
        Ok(format!("the configuration was read anew: {services}, {interfaces}{}", waits.unwrap_or_default()))
    }

    /// Tells the selector from when on a worker is spared new connections.
    pub(super) fn relieve(&mut self) -> Result<(), Failure> {
        self.dataplane.maps.set_relief(self.config.steering.relief()).map_err(failure)
    }
}
