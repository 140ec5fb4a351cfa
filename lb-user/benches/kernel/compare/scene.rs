//! One balancer: a client and a server joined by veth, four nginx workers, and what spreads connections over them.
//!
//! Each is set up as its own documentation has it. The workers of a proxy, and of the translation, are servers of their own, each with an
//! address.

use std::{net::SocketAddr, time::Duration};

use super::Setting;
use crate::support::{
    daemon::Weir,
    flood::Sink,
    load::Plan,
    netns::{Namespace, Pair},
    servers::{HaProxy, Nginx, ProxyPlan, children},
};

const PORT: u16 = 80;
const XDP_PASS: i32 = 2;
pub const WORKERS: usize = 4;
/// Every service is found, and its defence is what it is without a word about it.
const CONFIGURATION: &str = "discovery.tcp = true\n";
/// Connections that were translated to a server may still be on their way to it.
const BEFORE_A_SERVER_STOPS: Duration = Duration::from_millis(200);

/// A balancer, ready for its turn.
pub struct Scene {
    // In the order of their end: the daemon leaves the namespace before that goes.
    balancer: Balancer,
    servers: Servers,
    pair: Pair,
}

enum Balancer {
    /// The kernel, or nginx itself.
    None,
    PassingProgram(#[expect(dead_code, reason = "it is there as long as this is")] Sink),
    Proxy(HaProxy, ProxyPlan),
    Translation(&'static str),
    Weir(Weir),
}

/// The workers: of one nginx, or an nginx for each.
enum Servers {
    OneNginx(Nginx),
    Each(Vec<Nginx>),
}

impl Scene {
    pub fn new(setting: Setting) -> Self {
        let pair = Pair::with_addresses(4, 1 + u8::try_from(WORKERS).expect("a few"));
        let front = address(&pair, 0);
        // More ports than the clients use in a turn: nginx closes first, so each stays taken for a minute.
        pair.client.set_sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        let servers = match setting {
            Setting::OneSocket => Servers::OneNginx(Nginx::start_sharing(&pair.server, &[front], WORKERS)),
            Setting::Hash | Setting::PassingProgram | Setting::Weir(_) => Servers::OneNginx(Nginx::start(&pair.server, &[front], WORKERS)),
            Setting::Proxy(_) | Setting::Translation(_) => Servers::Each((0..WORKERS).map(|number| server(&pair, number)).collect()),
        };
        let balancer = match setting {
            Setting::Hash | Setting::OneSocket => Balancer::None,
            Setting::PassingProgram => Balancer::PassingProgram(Sink::of_all(&pair.server, Pair::SERVER_DEVICE, XDP_PASS)),
            Setting::Proxy(balance) => {
                let plan = ProxyPlan { listen: front, balance, servers: (0..WORKERS).map(|number| behind(&pair, number)).collect() };
                Balancer::Proxy(HaProxy::in_front(&pair.server, &plan), plan)
            }
            Setting::Translation(expression) => {
                translate(&pair, expression, WORKERS);
                Balancer::Translation(expression)
            }
            Setting::Weir(more) => {
                let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&format!("{CONFIGURATION}{more}")), &[]);
                weir.wait_for_backends(WORKERS);
                Balancer::Weir(weir)
            }
        };
        Self { balancer, servers, pair }
    }

    /// Where the clients are.
    pub fn client(&self) -> &Namespace {
        &self.pair.client
    }

    /// One short request for each connection, as wrk takes it.
    pub fn url(&self) -> String {
        format!("http://{}/", address(&self.pair, 0))
    }

    /// The same for our own clients.
    pub fn plan(&self) -> Plan {
        Plan::new(address(&self.pair, 0), &self.pair.client_v4).http("/", None).orderly_close()
    }

    /// The processes of the workers.
    pub fn workers(&self) -> Vec<u32> {
        match &self.servers {
            Servers::OneNginx(nginx) => nginx.worker_pids(),
            Servers::Each(all) => all.iter().flat_map(Nginx::worker_pids).collect(),
        }
    }

    /// All processes behind the clients: the workers, whoever balances, and the daemon and its helper.
    pub fn processes(&self) -> Vec<u32> {
        let mut processes: Vec<_> = self.pair.server.processes().iter().map(|pid| pid.as_raw().unsigned_abs()).collect();
        if let Balancer::Weir(weir) = &self.balancer {
            processes.push(weir.pid());
            processes.extend(children(weir.pid()));
        }
        processes
    }

    /// Goes to another number of workers, as an operator would who wants to lose nothing.
    pub fn resize(&mut self, workers: usize) {
        match &mut self.servers {
            Servers::OneNginx(nginx) => {
                nginx.set_workers(workers);
                nginx.reload();
                nginx.wait_until_settled();
                if let Balancer::Weir(weir) = &self.balancer {
                    weir.wait_for_backends(workers);
                }
            }
            Servers::Each(all) => {
                // Servers are there before they are named, and go after that.
                all.extend((all.len()..workers).map(|number| server(&self.pair, number)));
                match &mut self.balancer {
                    Balancer::Proxy(haproxy, plan) => {
                        plan.servers = (0..workers).map(|number| behind(&self.pair, number)).collect();
                        haproxy.set_plan(plan);
                        haproxy.reload();
                        haproxy.wait_until_settled();
                    }
                    Balancer::Translation(expression) => translate(&self.pair, expression, workers),
                    Balancer::None | Balancer::PassingProgram(_) | Balancer::Weir(_) => {}
                }
                std::thread::sleep(BEFORE_A_SERVER_STOPS);
                all.drain(workers..).for_each(Nginx::stop);
            }
        }
    }

    /// Whether Weir's defence is not as in calm.
    pub fn has_seen_a_flood(&self) -> bool {
        match &self.balancer {
            Balancer::Weir(weir) => weir.metrics().get("weir_defence_mode", &[("mode", "calm")]) != Some(1.0),
            _ => false,
        }
    }
}

fn address(pair: &Pair, number: usize) -> SocketAddr {
    SocketAddr::new(pair.server_v4[number], PORT)
}

/// The address of a worker that is a server of its own.
fn behind(pair: &Pair, number: usize) -> SocketAddr {
    address(pair, 1 + number)
}

fn server(pair: &Pair, number: usize) -> Nginx {
    Nginx::start(&pair.server, &[behind(pair, number)], 1)
}

/// nftables' load balancing by translation, as its wiki has it; a change is one transaction.
fn translate(pair: &Pair, expression: &str, workers: usize) {
    let servers: Vec<_> = (0..workers).map(|number| format!("{number} : {}", behind(pair, number).ip())).collect();
    pair.server.nft(&format!(
        "add table ip weirtest
         add chain ip weirtest prerouting {{ type nat hook prerouting priority dstnat; }}
         flush chain ip weirtest prerouting
         add rule ip weirtest prerouting ip daddr {} tcp dport {PORT} dnat to {expression} mod {workers} map {{ {} }}",
        address(pair, 0).ip(),
        servers.join(", ")
    ));
}
