//! Streams on machines with several nodes and kinds of cores.

use super::*;
use crate::topology::machines::{self, Machine};

fn placed(machine: &Machine, wish: &Wish) -> Placement {
    let eligible = wish.eligible(&machine.topology());
    wish.place(&eligible, &ProcessorSet::default()).expect("nothing is reserved")
}

fn sets(placement: &Placement) -> Vec<(String, Option<usize>)> {
    let text = |p: &StreamPlace| p.processors.iter().copied().collect::<ProcessorSet>().to_string();
    placement.places.iter().map(|p| (text(p), p.node)).collect()
}

#[test]
fn each_latency_stream_is_on_a_node_of_its_own() {
    let p = placed(&machines::TWO_SOCKETS, &Wish::default());
    assert_eq!(sets(&p), [("0-31".to_owned(), Some(0)), ("32-63".to_owned(), Some(1))]);
    let allowed: Vec<String> = p.places.iter().map(|p| p.allowed.to_string()).collect();
    assert_eq!(allowed, ["0-31,64-95", "32-63,96-127"], "siblings are there to escape to");
    let p = placed(&machines::INTERLEAVED, &Wish::default());
    let nodes: Vec<Option<usize>> = p.places.iter().map(|p| p.node).collect();
    assert_eq!(nodes, [Some(0), Some(1)]);
    for place in &p.places {
        assert_eq!(place.processors.len(), 20);
        assert!(place.processors.iter().all(|id| *id < 40), "first processors of cores only");
    }
}

#[test]
fn threads_that_fit_a_node_stay_on_one() {
    for (threads, expected) in
        [(1, &["0"][..]), (16, &["0-15"]), (17, &["0-8", "16-23"]), (32, &["0-15", "16-31"])]
    {
        let p = placed(&machines::SMT_OFF, &Wish { threads, ..Wish::default() });
        let texts: Vec<String> = sets(&p).into_iter().map(|(text, _)| text).collect();
        assert_eq!(texts, expected, "{threads} threads");
        assert_eq!(p.threads, threads);
    }
}

#[test]
fn nodes_of_unequal_size_have_streams_of_unequal_size() {
    let wish = Wish { processors: (0..16).chain(16..20).collect(), ..Wish::default() };
    let p = placed(&machines::SMT_OFF, &wish);
    assert_eq!(sets(&p), [("0-15".to_owned(), Some(0)), ("16-19".to_owned(), Some(1))]);
    assert_eq!((p.streams, p.threads), (2, 20));
}

#[test]
fn equal_streams_take_turns_on_the_nodes_and_share_out_the_rest() {
    let wish = Wish { streams: Some(Streams::Count(3)), threads: 8, ..Wish::default() };
    let p = placed(&machines::SMT_OFF, &wish);
    let expected = [("0-2", Some(0)), ("16-18", Some(1)), ("3-4", Some(0))];
    assert_eq!(sets(&p), expected.map(|(text, node)| (text.to_owned(), node)));
    let wish = Wish { streams: Some(Streams::Count(1)), threads: 20, ..Wish::default() };
    let p = placed(&machines::SMT_OFF, &wish);
    assert_eq!(sets(&p), [("0-19".to_owned(), None)], "explicit threads may span nodes");
    assert!(!p.places[0].is_confined);
}

#[test]
fn throughput_streams_use_cores_before_siblings() {
    let wish = Wish {
        mode: Some(PerformanceMode::Throughput),
        num_requests: 64,
        threads: 64,
        ..Wish::default()
    };
    let p = placed(&machines::TWO_SOCKETS, &wish);
    assert!(p.places.iter().all(|place| place.processors[0] < 64 && place.node.is_some()));
    assert_eq!(p.streams, 64);
}

#[test]
fn threads_are_shared_out_as_equally_as_nodes_allow() {
    for (counts, nodes, threads, expected) in [
        (&[32, 32][..], 2, 64, &[32, 32][..]),
        (&[32, 32], 2, 41, &[21, 20]),
        (&[32, 16], 2, 48, &[32, 16]),
        (&[32, 16], 2, 20, &[10, 10]),
        (&[8, 4, 1], 3, 12, &[7, 4, 1]),
        (&[4], 1, 3, &[3]),
    ] {
        assert_eq!(share_out(counts, nodes, threads), expected, "{counts:?} {threads}");
    }
    assert_eq!([1, 32, 33, 64].map(|threads| nodes_for(&[32, 32], threads)), [1, 1, 2, 2]);
}

#[test]
fn nothing_is_placed_when_everything_is_reserved() {
    let wish = Wish::default();
    let eligible = wish.eligible(&machines::plain(2).topology());
    let place = |reserved: &[usize]| wish.place(&eligible, &reserved.iter().copied().collect());
    assert_eq!(place(&[0, 1]), None);
    let left = place(&[0]).expect("one is left");
    assert_eq!((left.streams, left.threads, &left.places[0].processors[..]), (1, 1, &[1][..]));
}
