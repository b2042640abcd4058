//! libp2p alone: a swarm with nothing in it but streams.

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::try_join_all};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, multiaddr::Protocol, swarm::SwarmEvent, tcp,
};
use libp2p_noise as noise;
use libp2p_stream::{Behaviour, Control};
use libp2p_yamux as yamux;

use super::{LISTENING, Second, Transfers, end_with_stdin, runtime};
use crate::Failure;

/// The argument that makes this bench the second process.
pub(crate) const SERVE: &str = "serve-bare-streams";

const PROTOCOL: StreamProtocol = StreamProtocol::new("/bench");
const STREAMS: u64 = 4;
const PIECE_BYTES: usize = 256 << 10;
/// The first byte that an opener sends: who sends the bytes that follow. Then how many, as u64.
const TAKE: u8 = 0;
const SEND: u8 = 1;
const ACCEPTED: u8 = 2;
/// libp2p-stream drops an inbound stream when its queue is full.
const ATTEMPTS: usize = 20;

fn swarm() -> Result<Swarm<Behaviour>, Failure> {
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(600)))
        .build();
    Ok(swarm)
}

/// The second process.
pub(crate) fn serve() -> Result<(), Failure> {
    end_with_stdin();
    runtime()?.block_on(async {
        let mut swarm = swarm()?;
        let mut incoming = swarm.behaviour().new_control().accept(PROTOCOL)?;
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
        tokio::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                tokio::spawn(async move {
                    if let Err(error) = answer(stream).await {
                        eprintln!("bench: a bare stream failed: {error}");
                    }
                });
            }
        });
        let own_id = *swarm.local_peer_id();
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                println!("{LISTENING}{}", address.with(Protocol::P2p(own_id)));
            }
        }
    })
}

async fn answer(mut stream: Stream) -> Result<(), Failure> {
    let mut request = [0; 9];
    stream.read_exact(&mut request).await?;
    stream.write_all(&[ACCEPTED]).await?;
    stream.flush().await?;
    let bytes = u64::from_le_bytes(request[1..].try_into()?);
    if request[0] == TAKE {
        take(&mut stream, bytes).await?;
        stream.write_all(&[ACCEPTED]).await?;
    } else {
        send(&mut stream, bytes).await?;
    }
    Ok(stream.close().await?)
}

async fn send(stream: &mut Stream, bytes: u64) -> Result<(), Failure> {
    let piece = vec![7; PIECE_BYTES];
    for _ in 0..bytes / PIECE_BYTES as u64 {
        stream.write_all(&piece).await?;
    }
    Ok(stream.flush().await?)
}

async fn take(stream: &mut Stream, bytes: u64) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE_BYTES];
    for _ in 0..bytes / PIECE_BYTES as u64 {
        stream.read_exact(&mut piece).await?;
    }
    Ok(())
}

/// Opens a stream and has it accepted.
async fn open(control: &mut Control, to: PeerId, direction: u8, bytes: u64) -> Result<Stream, Failure> {
    let mut request = vec![direction];
    request.extend_from_slice(&bytes.to_le_bytes());
    for _ in 0..ATTEMPTS {
        let mut stream = control.open_stream(to, PROTOCOL).await?;
        let mut accepted = [0];
        let asked = async {
            stream.write_all(&request).await?;
            stream.flush().await?;
            stream.read_exact(&mut accepted).await
        };
        if asked.await.is_ok() {
            return Ok(stream);
        }
    }
    Err("bare streams are dropped again and again".into())
}

async fn one(mut control: Control, to: PeerId, direction: u8, bytes: u64) -> Result<(), Failure> {
    let mut stream = open(&mut control, to, direction, bytes).await?;
    if direction == SEND {
        return take(&mut stream, bytes).await;
    }
    send(&mut stream, bytes).await?;
    Ok(stream.read_exact(&mut [0]).await?)
}

/// Moves about `bytes` there and back.
pub(crate) fn measure(bytes: u64) -> Result<Transfers, Failure> {
    let share = (bytes / STREAMS).next_multiple_of(PIECE_BYTES as u64);
    let (second, address) = Second::start(SERVE)?;
    let address: Multiaddr = address.parse()?;
    let Some(Protocol::P2p(to)) = address.iter().last() else { return Err("an address without an id".into()) };
    let runtime = runtime()?;
    let control = runtime.block_on(async {
        let mut swarm = swarm()?;
        let control = swarm.behaviour().new_control();
        swarm.dial(address)?;
        while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Ok::<_, Failure>(control)
    })?;
    let all = |direction| {
        second.timed(share * STREAMS, || {
            let streams = (0..STREAMS).map(|_| one(control.clone(), to, direction, share));
            runtime.block_on(try_join_all(streams)).map(drop)
        })
    };
    Ok(Transfers { up: all(TAKE)?, down: all(SEND)? })
}
