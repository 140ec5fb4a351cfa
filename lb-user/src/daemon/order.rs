//! What an operator orders of a service's SYN defence.

use std::collections::BTreeMap;

use super::{Daemon, status};
use crate::{
    api::protocol::Order,
    command::defence::no_syns,
    config::Protocol,
    exit::{Exit, Failure, fail},
    plan::{Plan, Service},
};

/// The orders that hold, by the service's name. None for a service of which the configuration decides: [`Order::Auto`] is never here.
pub(super) type Overrides = BTreeMap<String, Order>;

impl Daemon {
    /// Forces a service's SYN defence, or has the configuration decide again. An order stays when its service goes and comes back.
    pub(super) fn defence_order(&mut self, name: &str, order: Order) -> Result<String, Failure> {
        let service = tcp_service(&self.plan, name)?;
        let index = service.index;
        let before = replace(&mut self.overrides, name, order);
        if before != order {
            tracing::info!("service {name}: SYN defence {} by command, was {}", order.label(), before.label());
        }
        let said = said(service, before, order);
        self.plan.orders.clone_from(&self.overrides);
        status::write(&self.state_file, &self.plan);
        self.carry_out_order(index, order);
        Ok(said)
    }
}

/// The service of this name, if it has SYNs.
fn tcp_service<'a>(plan: &'a Plan, name: &str) -> Result<&'a Service, Failure> {
    let service = plan.services.iter().find(|service| service.name == name);
    let service = service.ok_or_else(|| fail(Exit::NotFound, format!("there is no service {name}"), "`weir status` lists the services"))?;
    if service.protocol == Protocol::Tcp { Ok(service) } else { Err(no_syns(name)) }
}

/// Takes the order in; what held before.
fn replace(overrides: &mut Overrides, name: &str, order: Order) -> Order {
    let before = match order {
        Order::Auto => overrides.remove(name),
        Order::On | Order::Off => overrides.insert(name.to_owned(), order),
    };
    before.unwrap_or(Order::Auto)
}

fn said(service: &Service, before: Order, order: Order) -> String {
    let what = match order {
        Order::Auto => format!("the configuration decides about its SYN defence, which is {}", service.stance),
        Order::On => "every SYN is answered by cookie, flood or not".to_owned(),
        Order::Off => "every SYN passes to the kernel and nothing is refused, flood or not".to_owned(),
    };
    let again = if before == order { ", as before" } else { "" };
    format!("service {}: {what}{again}", service.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A TCP service `web` and a UDP service `dns`.
    fn plan() -> Plan {
        let service = |name: &str, protocol: &str| {
            json!({
                "index": 1, "name": name, "protocol": protocol, "address": "0.0.0.0", "port": 80, "device": null, "configured": true,
                "takeover": false, "stance": "always", "flags": 0, "table_size": 0, "entries": [], "backends": [], "notes": []
            })
        };
        serde_json::from_value(json!({ "services": [service("web", "tcp"), service("dns", "udp")], "others": [], "notes": [] })).unwrap()
    }

    #[test]
    fn an_order_holds_until_the_configuration_decides_again() {
        let plan = plan();
        let service = tcp_service(&plan, "web").unwrap();
        let mut overrides = Overrides::new();
        for (order, before, holds, says) in [
            (Order::Auto, Order::Auto, None, "service web: the configuration decides about its SYN defence, which is always, as before"),
            (Order::On, Order::Auto, Some(Order::On), "service web: every SYN is answered by cookie, flood or not"),
            (Order::On, Order::On, Some(Order::On), "service web: every SYN is answered by cookie, flood or not, as before"),
            (Order::Off, Order::On, Some(Order::Off), "service web: every SYN passes to the kernel and nothing is refused, flood or not"),
            (Order::Auto, Order::Off, None, "service web: the configuration decides about its SYN defence, which is always"),
        ] {
            assert_eq!(replace(&mut overrides, "web", order), before, "{says}");
            assert_eq!(overrides.get("web").copied(), holds, "{says}");
            assert_eq!(said(service, before, order), says);
        }
        assert!(overrides.is_empty());
    }

    #[test]
    fn only_a_tcp_service_that_exists_takes_one() {
        assert_eq!(tcp_service(&plan(), "dns").unwrap_err().exit, Exit::Usage);
        assert_eq!(tcp_service(&plan(), "wbe").unwrap_err().exit, Exit::NotFound);
    }
}
