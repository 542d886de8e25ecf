//! One connection through the proxy: two ways, each read, held back and written by what is set at that moment.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    State, Way,
    toxic::{End, Toxics},
};

/// What is on its way while a latency holds it: at most 64 pieces of 16 KiB in each direction.
const PIECES: usize = 64;
const PIECE_BYTES: usize = 16 * 1024;

/// What was read, and when it is to arrive. No bytes are the end.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

pub(super) async fn connect(mut client: TcpStream, upstream: String, state: watch::Receiver<State>) {
    let mut cut = state.clone();
    let server = tokio::select! {
        server = TcpStream::connect(&upstream) => server,
        () = until_cut(&mut cut) => return reset(&client),
    };
    let mut server = match server {
        Ok(server) => server,
        Err(error) => {
            tracing::debug!(%error, upstream, "the proxy cannot reach its upstream");
            return reset(&client);
        }
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let end = tokio::select! {
        passed = pass(&mut client, &mut server, &state) => passed.unwrap_or(End::Reset),
        end = until_ended(state.clone()) => end,
        () = until_cut(&mut cut) => End::Reset,
    };
    match end {
        End::Reset => {
            reset(&client);
            reset(&server);
        }
        End::Closed => {
            tokio::join!(close(client), close(server));
        }
    }
}

/// Says goodbye. What still comes is read for a moment: closing with something unread would be a reset.
async fn close(mut stream: TcpStream) {
    // It may be closed already.
    stream.shutdown().await.ok();
    let drain = async { while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {} };
    timeout(Duration::from_millis(200), drain).await.ok();
}

/// Passes both directions until both have ended: a half-closed connection stays so.
async fn pass(
    client: &mut TcpStream,
    server: &mut TcpStream,
    state: &watch::Receiver<State>,
) -> io::Result<End> {
    // Borrowed halves: owned ones say goodbye when dropped, and so spoil a reset.
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = way(Way::Up, &mut from_client, &mut to_server, state);
    let down = way(Way::Down, &mut from_server, &mut to_client, state);
    tokio::pin!(up, down);
    // A way that has passed its limit ends the other one too.
    let (first, other) = tokio::select! {
        passed = &mut up => (passed?, true),
        passed = &mut down => (passed?, false),
    };
    if first == Passed::Limit {
        return Ok(End::Closed);
    }
    if other {
        down.await?
    } else {
        up.await?
    };
    Ok(End::Closed)
}

#[derive(PartialEq, Eq)]
enum Passed {
    All,
    Limit,
}

async fn way(
    way: Way,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    state: &watch::Receiver<State>,
) -> io::Result<Passed> {
    let (pieces, arriving) = mpsc::channel(PIECES);
    let read = read(way, from, pieces, state.clone());
    let write = write(way, to, arriving, state.clone());
    tokio::pin!(read, write);
    tokio::select! {
        passed = &mut write => return passed,
        ended = &mut read => ended?,
    }
    write.await
}

async fn read(
    way: Way,
    from: &mut ReadHalf<'_>,
    pieces: mpsc::Sender<Piece>,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut last = Instant::now();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = tokio::select! {
            biased;
            () = while_held(way, &mut state) => continue,
            read = from.read(&mut buffer) => read?,
        };
        let latency = state.borrow().of(way).latency();
        last = last.max(Instant::now() + latency);
        let piece = Piece { due: last, bytes: buffer[..read].to_vec() };
        if pieces.send(piece).await.is_err() || read == 0 {
            return Ok(());
        }
    }
}

async fn write(
    way: Way,
    to: &mut WriteHalf<'_>,
    mut arriving: mpsc::Receiver<Piece>,
    mut state: watch::Receiver<State>,
) -> io::Result<Passed> {
    let mut passed: u64 = 0;
    while let Some(piece) = arriving.recv().await {
        sleep_until(piece.due).await;
        if piece.bytes.is_empty() {
            until_passing(way, &mut state).await;
            let delay = state.borrow().of(way).slow_close();
            sleep(delay).await;
            to.shutdown().await?;
            return Ok(Passed::All);
        }
        let mut rest = piece.bytes.as_slice();
        while !rest.is_empty() {
            // The line may have been held up since these bytes arrived, or since the last segment.
            until_passing(way, &mut state).await;
            let segment = Segment::of(state.borrow().of(way), rest.len(), passed);
            let Some(segment) = segment else { return Ok(Passed::Limit) };
            let (now, later) = rest.split_at(segment.bytes);
            to.write_all(now).await?;
            passed += now.len() as u64;
            rest = later;
            if state.borrow().of(way).limit().is_some_and(|limit| passed >= limit) {
                return Ok(Passed::Limit);
            }
            sleep(segment.pause).await;
        }
    }
    Ok(Passed::All)
}

/// What is written at once, and how long it takes the line.
struct Segment {
    bytes: usize,
    pause: Duration,
}

impl Segment {
    /// Nothing when the limit is reached.
    fn of(toxics: &Toxics, waiting: usize, passed: u64) -> Option<Self> {
        let (mut bytes, mut pause) = (waiting, Duration::ZERO);
        if let Some((most, wait)) = toxics.slices() {
            bytes = bytes.min(most);
            pause = wait;
        }
        if let Some(limit) = toxics.limit() {
            let left = limit.saturating_sub(passed);
            if left == 0 {
                return None;
            }
            bytes = bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if let Some(rate) = toxics.bytes_per_second() {
            // A twentieth of a second's worth at once, so that little bytes do not come in big gulps.
            bytes = bytes.min(usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1));
            pause += Duration::from_secs_f64(bytes as f64 / f64::from(rate));
        }
        Some(Self { bytes, pause })
    }
}

/// Waits while this way is held; never ends when it is not, until it was and is no more.
async fn while_held(way: Way, state: &mut watch::Receiver<State>) {
    // The sender outlives the pump, or has said that the line is cut before it went.
    state.wait_for(|state| !state.passes(way)).await.ok();
    until_passing(way, state).await;
}

async fn until_passing(way: Way, state: &mut watch::Receiver<State>) {
    if state.wait_for(|state| state.passes(way)).await.is_err() {
        std::future::pending().await
    }
}

async fn until_cut(state: &mut watch::Receiver<State>) {
    state.wait_for(|state| state.cut).await.ok();
}

/// Waits until a toxic ends the connection, whatever passes.
async fn until_ended(mut state: watch::Receiver<State>) -> End {
    loop {
        let end = {
            let state = state.borrow_and_update();
            state.up.end().or_else(|| state.down.end())
        };
        let elapses = async {
            match end {
                Some((after, end)) => {
                    sleep(after).await;
                    end
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            end = elapses => return end,
            changed = state.changed() => if changed.is_err() {
                return End::Reset;
            },
        }
    }
}

/// Makes the end of this connection a reset.
fn reset(stream: &TcpStream) {
    // It may be closed already.
    stream.set_zero_linger().ok();
}
