//! A station that moves, between ports of one host and between hosts, while others send to it: it is
//! followed as soon as it has sent a frame, and then nothing goes to where it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::{
    accelerated::Accelerated,
    lab::{Capture, Container, Encap, Lab, patience, traffic, wait_until},
};

use crate::support::{CHANCE, INTERVAL, LIMIT, RATE, at_once, fact, say, took};

const MAC: [u8; 6] = [2, 0, 0, 0, 0x99, 1];
const ADDRESS: &str = "10.0.0.99";
const PORT: u16 = 9999;
/// Of a frame with a datagram: Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Between packets of a sender.
const PACE: Duration = Duration::from_millis(1000 / RATE as u64);

/// A container by its host's number and its own.
type Place = (usize, usize);
/// Where the station goes in turn, and what that is.
const MOVES: [(Place, Place, &str); 4] = [
    ((0, 1), (0, 2), "to another port of its host"),
    ((0, 2), (1, 1), "to the other host"),
    ((1, 1), (1, 2), "to another port of the other host"),
    ((1, 2), (0, 1), "back to the first host"),
];
/// How often it goes round: for how long a bridge sends to the old host varies widely from move to move.
const ROUNDS: usize = 3;
/// The containers that send to the station: one on each host.
const SENDERS: [Place; 2] = [(0, 0), (1, 0)];

fn at(lab: &Lab, (host, container): Place) -> &Container {
    lab.host(host).container(container)
}

/// Gives a container the station's MAC and address beside its own address.
fn arrive(container: &Container) -> Result<()> {
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    container.ip(&format!("link set eth0 address {mac}\naddr add {ADDRESS}/24 dev eth0\n"))
}

fn leave(container: &Container) -> Result<()> {
    let mac = container.mac();
    container.ip(&format!("addr del {ADDRESS}/24 dev eth0\nlink set eth0 address {mac}\n"))
}

/// Sends numbered packets to the station until it is told to stop; gives how many.
fn send(from: &Container, sender: u8, stop: &AtomicBool) -> Result<u64> {
    let socket = from.run_in(|| UdpSocket::bind("0.0.0.0:0")).context("cannot bind")?;
    let (mut sent, mut next) = (0_u64, Instant::now());
    while !stop.load(Ordering::Acquire) {
        let mut packet = [sender; 9];
        packet[1..].copy_from_slice(&sent.to_be_bytes());
        socket.send_to(&packet, (ADDRESS, PORT)).context("cannot send")?;
        sent += 1;
        next += PACE;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(sent)
}

/// The station's packets that came to one place: sender, number, and when.
type Arrivals = BTreeMap<(u8, u64), Instant>;

/// Takes down what comes to a container for the station until it is told to stop; whatever comes twice
/// is an error. `enough` is set when so many have come from each sender.
fn watch(at: &Container, stop: &AtomicBool, enough: &AtomicBool) -> Result<Arrivals> {
    let mut capture = Capture::start(at, "eth0")?;
    let mut arrivals = Arrivals::new();
    let mut from_each = [0; SENDERS.len()];
    while !stop.load(Ordering::Acquire) {
        let Some(frame) = capture.read() else { continue };
        let is_wanted =
            frame.len() >= HEADERS + 9 && frame[..6] == MAC && frame[36..38] == PORT.to_be_bytes();
        if is_wanted {
            let payload = &frame[HEADERS..HEADERS + 9];
            let number = u64::from_be_bytes(payload[1..].try_into()?);
            let before = arrivals.insert((payload[0], number), Instant::now());
            ensure!(before.is_none(), "packet {number} of sender {} came twice", payload[0]);
            from_each[usize::from(payload[0])] += 1;
            let least = from_each.iter().min().copied();
            enough.store(least >= Some(RATE / 4), Ordering::Release);
        }
    }
    Ok(arrivals)
}

/// Moves the station under traffic. Gives how many packets came to neither place.
fn moves(lab: &Lab, from: Place, to: Place, what: &str) -> Result<u64> {
    let (old, new) = (at(lab, from), at(lab, to));
    let stops: [AtomicBool; 3] = Default::default();
    let [stop_sending, stop_old, stop_new] = &stops;
    let [flows_old, flows_new]: [AtomicBool; 2] = Default::default();
    thread::scope(|scope| {
        let watch_old = scope.spawn(|| watch(old, stop_old, &flows_old));
        let watch_new = scope.spawn(|| watch(new, stop_new, &flows_new));
        let senders: Vec<_> = (0..)
            .zip(SENDERS)
            .map(|(number, place)| scope.spawn(move || send(at(lab, place), number, stop_sending)))
            .collect();
        // A panic of a wait must not leave the threads running: the scope waits for them.
        let guard = Stop(&stops);
        wait_until(LIMIT, "packets at the old place", || {
            flows_old.load(Ordering::Acquire).then_some(())
        });
        leave(old)?;
        arrive(new)?;
        let moved = Instant::now();
        for sender in SENDERS {
            let sender = at(lab, sender);
            at_once(&format!("{what}: an echo of {}", sender.ipv4()), || {
                // The first answer may go to the old place: the next is asked for well within the limit.
                let address = sender.ipv4().to_string();
                new.try_exec(&["ping", "-nqc1", "-W1", &address]).is_ok().then_some(())
            });
        }
        wait_until(LIMIT, "packets at the new place", || {
            flows_new.load(Ordering::Acquire).then_some(())
        });
        stop_sending.store(true, Ordering::Release);
        let sent: Vec<u64> = senders
            .into_iter()
            .map(|sender| sender.join().expect("no panic"))
            .collect::<Result<_>>()?;
        // What is on its way.
        thread::sleep(patience(Duration::from_millis(50)));
        drop(guard);
        let old = watch_old.join().expect("no panic")?;
        let new = watch_new.join().expect("no panic")?;
        judge(&old, &new, moved, what)?;
        let arrived: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        Ok(sent.iter().sum::<u64>() - arrived.len() as u64)
    })
}

/// Stops all threads when it is dropped.
struct Stop<'a>(&'a [AtomicBool]);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|stop| stop.store(true, Ordering::Release));
    }
}

/// For how long packets may go either way once the first has come to the new place. Fast ones don't: what is
/// in doubt is Open vSwitch's, which may look up one packet before it learns and enter that way for the next
/// ones after it.
const EITHER_WAY: Duration = Duration::from_millis(50);

/// Each sender's packets came to one place each, and to the new one alone soon after the first that came
/// there.
fn judge(old: &Arrivals, new: &Arrivals, moved: Instant, what: &str) -> Result<()> {
    for (sender, place) in (0..).zip(SENDERS) {
        // Until both bridges had learned where the station is, packets came to every port.
        let first = new.iter().find(|((from, _), time)| *from == sender && **time >= moved);
        let ((_, first), time) = first.with_context(|| format!("nothing of {place:?} came"))?;
        let late = old.range((sender, *first)..=(sender, u64::MAX));
        let late = late.filter(|(_, at)| **at > *time + patience(EITHER_WAY));
        let late: Vec<_> = late.map(|((_, number), _)| number).collect();
        ensure!(late.is_empty(), "{what}: packets {late:?} of {place:?} came to the old place");
        took(&format!("{what}: packets of {place:?}"), time.saturating_duration_since(moved));
    }
    Ok(())
}

/// Waits until both senders reach the station, so that both hosts know where it is.
fn reached(lab: &Lab) -> Result<()> {
    let address: Ipv4Addr = ADDRESS.parse()?;
    for sender in SENDERS {
        wait_until(LIMIT, &format!("an echo of the station to {sender:?}"), || {
            let ping = traffic::ping(at(lab, sender), address, 56, 1, INTERVAL);
            ping.is_ok_and(|ping| ping.received == 1).then_some(())
        });
    }
    Ok(())
}

/// Lets the station go round some times; gives what each move cost, in the median.
fn goes_round(lab: &Lab, settle: impl Fn() -> Result<()>) -> Result<Vec<u64>> {
    let mut losses = [[0; ROUNDS]; MOVES.len()];
    for round in 0..ROUNDS {
        for (losses, (from, to, what)) in losses.iter_mut().zip(MOVES) {
            fact(what, || {
                settle()?;
                losses[round] = moves(lab, from, to, what)?;
                Ok(())
            })?;
        }
    }
    settle()?;
    say(&format!("lost {losses:?}"));
    let median = |mut losses: [u64; ROUNDS]| {
        losses.sort_unstable();
        losses[ROUNDS / 2]
    };
    Ok(losses.map(median).to_vec())
}

#[test]
fn a_station_that_moves_is_followed_and_nothing_goes_to_where_it_was() -> Result<()> {
    let lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[3, 3])?;
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    // Who sends to the station, and who answers it, is known without ARP: it is its frames that tell.
    let mut sockets = Vec::new();
    for (host, index) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        let container = at(&lab, (host, index));
        container.exec(&["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"]);
        for other in SENDERS.map(|place| at(&lab, place)) {
            let (address, mac) = (other.ipv4(), other.mac());
            container
                .ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent\n"))?;
        }
        container.ip(&format!("neigh replace {ADDRESS} lladdr {mac} dev eth0 nud permanent\n"))?;
        // Takes the packets: no ICMP comes back.
        sockets.push(container.run_in(|| UdpSocket::bind(("0.0.0.0", PORT)))?);
    }
    arrive(at(&lab, MOVES[0].0))?;
    let alone = fact("Open vSwitch alone", || goes_round(&lab, || reached(&lab)))?;

    let pair = Accelerated::start_on(lab, &[0, 1])?;
    let known: Vec<&str> =
        SENDERS.map(|place| at(&pair.lab, place).mac()).into_iter().chain([&*mac]).collect();
    let fast = || {
        reached(&pair.lab)?;
        pair.until_fast(&known)
    };
    let lost = fact("both hosts accelerated", || goes_round(&pair.lab, fast))?;
    say(&format!("lost {lost:?}, alone {alone:?}"));
    let more = lost.iter().zip(&alone).any(|(lost, alone)| *lost > alone + CHANCE);
    ensure!(!more, "lost {lost:?}, alone {alone:?}");
    Ok(())
}
