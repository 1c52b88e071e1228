//! What waits for one session: frames, bounded by number and bytes, and orders. Full is an answer with a name; a
//! message is never dropped silently. An idle queue holds no buffer.

use crate::close_codes::{Close, CloseCode};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

/// Whether a frame may be left out when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Never: the session is closed instead.
    Message,
    /// Yes: it is worth nothing later.
    Droppable,
}

#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) text: Utf8Bytes,
    class: Class,
}

/// What became of an offered frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It waits for the session.
    Taken,
    /// There was no room for a droppable one.
    Dropped,
    /// There is no room (any more): the session is being closed as slow.
    Slow,
    /// The session is being closed for another reason.
    Closed,
}

/// What a session must do besides sending frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Tell the client to connect elsewhere after so long.
    Leave(Duration),
    /// Tell the client again that it is registered, so that it syncs.
    Ready,
    /// Close now, whatever waits.
    Close(Close),
}

/// What a session finds in its queue.
#[derive(Debug)]
pub(crate) enum Taken {
    Frames(VecDeque<Queued>),
    Order(Order),
}

/// One session's queue. Anybody offers, one task takes.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Queued>,
    /// Waiting and taken but not yet written: the bounds hold for both.
    frames: usize,
    bytes: usize,
    taken_frames: usize,
    taken_bytes: usize,
    leave: Option<Duration>,
    ready: bool,
    closing: Option<Closing>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Closing {
    close: Close,
    told: bool,
}

impl Queue {
    /// Offers a frame. A message that does not fit closes the session (4010); what waited is let go at once, the
    /// client finds it in the history.
    pub(crate) fn offer(&self, text: &Utf8Bytes, class: Class, bounds: Bounds) -> Offered {
        let mut state = self.lock();
        if let Some(closing) = &state.closing {
            return if closing.close.code == CloseCode::Slow { Offered::Slow } else { Offered::Closed };
        }
        if !state.fits(text, bounds) && class == Class::Message {
            state.drop_droppable();
        }
        if !state.fits(text, bounds) {
            if class == Class::Droppable {
                return Offered::Dropped;
            }
            let waker = state.close(Close::new(CloseCode::Slow, "messages came faster than you read"));
            drop(state);
            wake(waker);
            return Offered::Slow;
        }
        state.frames += 1;
        state.bytes += text.len();
        state.waiting.push_back(Queued { text: text.clone(), class });
        // The task takes everything at once, so only the first frame has to wake it.
        let waker = if state.waiting.len() == 1 { state.waker.take() } else { None };
        drop(state);
        wake(waker);
        Offered::Taken
    }

    /// Orders the session to do something. The first close stands.
    pub(crate) fn order(&self, order: Order) {
        let mut state = self.lock();
        let waker = match order {
            Order::Close(close) => state.close(close),
            Order::Leave(after) => {
                state.leave = Some(after);
                state.waker.take()
            }
            Order::Ready => {
                state.ready = true;
                state.waker.take()
            }
        };
        drop(state);
        wake(waker);
    }

    /// Whether the session was told to close.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing.is_some()
    }

    /// Orders first, then everything that waits. With `written`, what was taken before is off the books and more may
    /// be taken; without, only orders are looked for. Pending means this task is woken.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, written: bool) -> Poll<Taken> {
        let mut state = self.lock();
        if let Some(closing) = state.closing.as_mut().filter(|closing| !closing.told) {
            closing.told = true;
            return Poll::Ready(Taken::Order(Order::Close(closing.close)));
        }
        if let Some(after) = state.leave.take() {
            return Poll::Ready(Taken::Order(Order::Leave(after)));
        }
        if std::mem::take(&mut state.ready) {
            return Poll::Ready(Taken::Order(Order::Ready));
        }
        if written {
            state.settle();
            if !state.waiting.is_empty() {
                (state.taken_frames, state.taken_bytes) = (state.frames, state.bytes);
                return Poll::Ready(Taken::Frames(std::mem::take(&mut state.waiting)));
            }
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl State {
    fn fits(&self, text: &Utf8Bytes, bounds: Bounds) -> bool {
        self.frames < bounds.frames && self.bytes + text.len() <= bounds.bytes
    }

    fn drop_droppable(&mut self) {
        let (mut frames, mut bytes) = (0, 0);
        self.waiting.retain(|queued| {
            let keep = queued.class == Class::Message;
            if !keep {
                frames += 1;
                bytes += queued.text.len();
            }
            keep
        });
        self.frames -= frames;
        self.bytes -= bytes;
    }

    /// What was taken has been written.
    fn settle(&mut self) {
        self.frames -= std::mem::take(&mut self.taken_frames);
        self.bytes -= std::mem::take(&mut self.taken_bytes);
    }

    fn close(&mut self, close: Close) -> Option<Waker> {
        if self.closing.is_some() {
            return None;
        }
        self.closing = Some(Closing { close, told: false });
        self.waiting = VecDeque::new();
        self.waker.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::task::Waker;

    const BOUNDS: Bounds = Bounds { frames: 4, bytes: 100 };

    fn offer(queue: &Queue, length: usize, class: Class) -> Offered {
        queue.offer(&Utf8Bytes::from("x".repeat(length)), class, BOUNDS)
    }

    fn poll(queue: &Queue, written: bool) -> Poll<Taken> {
        queue.poll(&mut Context::from_waker(Waker::noop()), written)
    }

    fn take(queue: &Queue) -> usize {
        match poll(queue, true) {
            Poll::Ready(Taken::Frames(frames)) => frames.len(),
            Poll::Ready(Taken::Order(order)) => panic!("{order:?}"),
            Poll::Pending => 0,
        }
    }

    fn ordered_close(queue: &Queue) -> Option<CloseCode> {
        match poll(queue, true) {
            Poll::Ready(Taken::Order(Order::Close(close))) => Some(close.code),
            _ => None,
        }
    }

    #[test]
    fn everything_that_waits_is_taken_at_once() {
        let queue = Queue::default();
        for _ in 0..3 {
            assert_eq!(offer(&queue, 10, Class::Message), Offered::Taken);
        }
        assert_eq!(take(&queue), 3);
        assert_eq!(take(&queue), 0);
    }

    #[test]
    fn one_frame_too_many_closes_the_session_as_slow() {
        let queue = Queue::default();
        for _ in 0..4 {
            assert_eq!(offer(&queue, 1, Class::Message), Offered::Taken);
        }
        assert_eq!(offer(&queue, 1, Class::Message), Offered::Slow);
        assert_eq!(offer(&queue, 1, Class::Message), Offered::Slow);
        assert_eq!(ordered_close(&queue), Some(CloseCode::Slow));
        assert_eq!(ordered_close(&queue), None, "told once");
    }

    #[test]
    fn one_byte_too_many_closes_the_session_as_slow() {
        let queue = Queue::default();
        assert_eq!(offer(&queue, 100, Class::Message), Offered::Taken);
        assert_eq!(offer(&queue, 1, Class::Message), Offered::Slow);
    }

    #[test]
    fn what_was_taken_counts_until_it_is_written() {
        let queue = Queue::default();
        for _ in 0..4 {
            offer(&queue, 1, Class::Message);
        }
        assert_eq!(take(&queue), 4);
        assert!(poll(&queue, false).is_pending());
        assert_eq!(offer(&queue, 1, Class::Message), Offered::Slow);

        let queue = Queue::default();
        for _ in 0..4 {
            offer(&queue, 1, Class::Message);
        }
        assert_eq!(take(&queue), 4);
        assert_eq!(take(&queue), 0, "asking for more says it was written");
        assert_eq!(offer(&queue, 1, Class::Message), Offered::Taken);
    }

    #[test]
    fn droppable_frames_make_room_for_messages_but_never_the_other_way() {
        let queue = Queue::default();
        offer(&queue, 1, Class::Message);
        for _ in 0..3 {
            assert_eq!(offer(&queue, 1, Class::Droppable), Offered::Taken);
        }
        assert_eq!(offer(&queue, 1, Class::Droppable), Offered::Dropped);
        assert_eq!(offer(&queue, 1, Class::Message), Offered::Taken);
        assert_eq!(take(&queue), 2);
    }

    #[test]
    fn the_first_close_stands_and_nothing_is_taken_after_it() {
        let queue = Queue::default();
        offer(&queue, 1, Class::Message);
        queue.order(Order::Leave(Duration::from_secs(1)));
        queue.order(Order::Close(Close::new(CloseCode::Replaced, "")));
        queue.order(Order::Close(Close::new(CloseCode::Restart, "")));
        assert_eq!(offer(&queue, 1, Class::Message), Offered::Closed);
        assert_eq!(ordered_close(&queue), Some(CloseCode::Replaced));
        assert!(queue.is_closing());
    }

    #[test]
    fn an_idle_queue_holds_no_buffer() {
        let queue = Queue::default();
        for _ in 0..4 {
            offer(&queue, 1, Class::Message);
        }
        take(&queue);
        assert_eq!(queue.lock().waiting.capacity(), 0);
        assert!(size_of::<Queue>() <= 192, "{}", size_of::<Queue>());
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whatever_happens(steps in prop::collection::vec((0..4_u8, 0..60_usize), 0..80)) {
            let queue = Queue::default();
            for (step, length) in steps {
                match step {
                    0 => { offer(&queue, length, Class::Message); }
                    1 => { offer(&queue, length, Class::Droppable); }
                    2 => { let _ = poll(&queue, true); }
                    _ => { let _ = poll(&queue, false); }
                }
                let state = queue.lock();
                let held: usize = state.waiting.iter().map(|queued| queued.text.len()).sum();
                prop_assert!(held + state.taken_bytes <= BOUNDS.bytes);
                prop_assert!(state.waiting.len() + state.taken_frames <= BOUNDS.frames);
            }
        }
    }
}
