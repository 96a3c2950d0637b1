//! Decides which item is taken next. Pure: no atomics, no clock.

use std::collections::VecDeque;

use super::{Order, QueueOptions, QueueSnapshot, Ticket};

/// Items that have left their slots and are not taken yet.
pub(super) enum Arrivals<T> {
    ByTicket(ByTicket<T>),
    ByArrival(ByArrival<T>),
}

impl<T> Arrivals<T> {
    /// Goes on where a snapshot was made; it has been checked.
    pub(super) fn restore(options: &QueueOptions, snapshot: QueueSnapshot<T>) -> Self {
        match options.order {
            Order::Ticket => Self::ByTicket(ByTicket::restore(snapshot)),
            Order::Arrival => Self::ByArrival(ByArrival::restore(options, snapshot)),
        }
    }

    /// Takes in an item, or the news that a ticket has none.
    pub(super) fn add(&mut self, ticket: Ticket, item: Option<T>) {
        match self {
            Self::ByTicket(arrivals) => arrivals.add(ticket, item),
            Self::ByArrival(arrivals) => arrivals.add(ticket, item),
        }
    }

    /// Returns the next item for a batch that lacks `lacking` of them, if it is here.
    pub(super) fn next(&mut self, lacking: usize) -> Option<(Ticket, T)> {
        match self {
            Self::ByTicket(arrivals) => arrivals.next(),
            Self::ByArrival(arrivals) => arrivals.next(lacking),
        }
    }

    /// Notes that an iteration has ended with the tickets below `issued` out.
    pub(super) fn end_iteration(&mut self, issued: u64) {
        if let Self::ByArrival(arrivals) = self {
            arrivals.end_iteration(issued);
        }
    }

    /// Returns what is here, in the order in which it could be taken.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = (Ticket, &T)> + '_> {
        match self {
            Self::ByTicket(arrivals) => Box::new(arrivals.iter()),
            Self::ByArrival(arrivals) => {
                Box::new(arrivals.items.iter().map(|(at, item)| (*at, item)))
            }
        }
    }

    /// Returns how many items are here.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::ByTicket(arrivals) => arrivals.items,
            Self::ByArrival(arrivals) => arrivals.items.len(),
        }
    }

    /// Returns the ticket without which there is no going on, where there is just one such.
    pub(super) fn awaited(&self) -> Option<Ticket> {
        match self {
            Self::ByTicket(arrivals) => Some(Ticket(arrivals.next)),
            Self::ByArrival(_) => None,
        }
    }
}

/// The reorder buffer: bounded, since no more tickets are out than the queue has capacity.
pub(super) struct ByTicket<T> {
    next: u64,
    /// What has become of `next` and of those after it, up to the last of which anything is known.
    places: VecDeque<Place<T>>,
    items: usize,
}

/// What has become of a ticket.
enum Place<T> {
    Out,
    Dropped,
    Here(T),
}

impl<T> ByTicket<T> {
    fn restore(snapshot: QueueSnapshot<T>) -> Self {
        let next = snapshot.oldest().0;
        // What is not open from there on was dropped: in this order nothing is taken before what is older.
        let places = (next..snapshot.next.0).map(|_| Place::Dropped).collect();
        let mut arrivals = Self { next, places, items: snapshot.answered.len() };
        for ticket in snapshot.out {
            *arrivals.place(ticket) = Place::Out;
        }
        for (ticket, item) in snapshot.answered {
            *arrivals.place(ticket) = Place::Here(item);
        }
        arrivals
    }

    /// Returns the place of a ticket that was not taken yet.
    fn place(&mut self, ticket: Ticket) -> &mut Place<T> {
        let index = (ticket.0 - self.next) as usize;
        if self.places.len() <= index {
            self.places.resize_with(index + 1, || Place::Out);
        }
        &mut self.places[index]
    }

    fn add(&mut self, ticket: Ticket, item: Option<T>) {
        self.items += usize::from(item.is_some());
        *self.place(ticket) = item.map_or(Place::Dropped, Place::Here);
        self.skip_dropped();
    }

    fn next(&mut self) -> Option<(Ticket, T)> {
        let ticket = Ticket(self.next);
        let Some(Place::Here(item)) =
            self.places.pop_front_if(|place| matches!(place, Place::Here(_)))
        else {
            return None;
        };
        self.next += 1;
        self.items -= 1;
        self.skip_dropped();
        Some((ticket, item))
    }

    /// Skips them at once, so that `next` names a ticket somebody has.
    fn skip_dropped(&mut self) {
        while let Some(Place::Dropped) = self.places.front() {
            self.places.pop_front();
            self.next += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Ticket, &T)> {
        (self.next..).map(Ticket).zip(&self.places).filter_map(|(ticket, place)| match place {
            Place::Here(item) => Some((ticket, item)),
            Place::Out | Place::Dropped => None,
        })
    }
}

/// First come, first served, unless that would make somebody else too late.
///
/// What was issued in iteration `i` is due in iteration `i + max_staleness`. An item may overtake those due before it if
/// they still fit the batches up to their own: with `d` iterations to go, at most `d * batch` open tickets besides the
/// places left in this batch. Admission keeps that true for the newest, this rule for the others.
pub(super) struct ByArrival<T> {
    batch: usize,
    max_staleness: usize,
    items: VecDeque<(Ticket, T)>,
    /// Tickets issued in the iterations that have ended.
    issued: u64,
    /// The `max_staleness + 1` iterations whose tickets may be open, the current one last.
    iterations: VecDeque<Issued>,
}

/// The tickets of one iteration.
#[derive(Clone, Copy)]
struct Issued {
    /// They are those below it, down to the iteration before. Not known of the current one.
    end: u64,
    /// How many are neither taken nor dropped. Of the current one: minus those that are.
    open: i64,
}

impl<T> ByArrival<T> {
    fn restore(options: &QueueOptions, snapshot: QueueSnapshot<T>) -> Self {
        let issued = snapshot.ends.last().map_or(0, |end| end.0);
        let closed_of_current = issued as i64 - snapshot.next.0 as i64;
        let mut arrivals = Self {
            batch: options.batch,
            max_staleness: options.max_staleness,
            items: VecDeque::new(),
            issued,
            iterations: snapshot.ends.iter().map(|end| Issued { end: end.0, open: 0 }).collect(),
        };
        arrivals.iterations.push_back(Issued { end: u64::MAX, open: closed_of_current });
        for ticket in snapshot.open() {
            let iteration = arrivals.iteration_of(ticket);
            arrivals.iterations[iteration].open += 1;
        }
        arrivals.items = snapshot.answered.into();
        arrivals
    }

    fn add(&mut self, ticket: Ticket, item: Option<T>) {
        match item {
            Some(item) => self.items.push_back((ticket, item)),
            None => self.close(ticket),
        }
    }

    fn next(&mut self, lacking: usize) -> Option<(Ticket, T)> {
        let place = self.items.iter().position(|(ticket, _)| self.may_go(*ticket, lacking))?;
        let (ticket, item) = self.items.remove(place)?;
        self.close(ticket);
        Some((ticket, item))
    }

    /// Says whether everything due before `ticket` still comes in time if `ticket` takes one of the `lacking` places.
    fn may_go(&self, ticket: Ticket, lacking: usize) -> bool {
        let mine = self.iteration_of(ticket);
        let mut open = 0;
        self.iterations.iter().take(mine).zip(self.iterations_to_go()).all(|(issued, to_go)| {
            open += issued.open;
            open <= (to_go * self.batch + lacking - 1) as i64
        })
    }

    /// For each of `iterations`, how many iterations are left after this one until its tickets are due.
    fn iterations_to_go(&self) -> impl Iterator<Item = usize> {
        (0..=self.max_staleness).skip(self.max_staleness + 1 - self.iterations.len())
    }

    fn iteration_of(&self, ticket: Ticket) -> usize {
        self.iterations.partition_point(|issued| issued.end <= ticket.0)
    }

    fn close(&mut self, ticket: Ticket) {
        let iteration = self.iteration_of(ticket);
        self.iterations[iteration].open -= 1;
    }

    fn end_iteration(&mut self, issued: u64) {
        if let Some(current) = self.iterations.back_mut() {
            current.open += (issued - self.issued) as i64;
            current.end = issued;
        }
        self.issued = issued;
        self.iterations.push_back(Issued { end: u64::MAX, open: 0 });
        if self.iterations.len() > self.max_staleness + 1 {
            let due = self.iterations.pop_front();
            debug_assert_eq!(due.map(|issued| issued.open), Some(0), "nobody is left behind");
        }
    }
}
