//! A wire of TCP that can be slow, silent or cut.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::wire::Line;

/// The wire. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    /// Raised whenever every connection breaks.
    epoch: watch::Sender<u64>,
}

impl Proxy {
    /// A wire to this address, from a port of this machine.
    pub fn to(target: SocketAddr) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (line, epoch) = (watch::Sender::new(Line::Whole(Duration::ZERO)), watch::Sender::new(0));
        let proxy = Self { address: listener.local_addr()?, line, epoch };
        let server = proxy.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *server.line.borrow() != Line::Cut {
                    tokio::spawn(server.clone().connection(near, target));
                }
            }
        });
        Ok(proxy)
    }

    /// Where it begins.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes how it is.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
        if line == Line::Cut {
            self.blip();
        }
    }

    /// Every connection breaks.
    pub fn blip(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    async fn connection(self, near: TcpStream, target: SocketAddr) {
        let mut epoch = self.epoch.subscribe();
        let Ok(far) = TcpStream::connect(target).await else { return };
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::select! {
            _ = self.carry(near_in, far_out) => {}
            _ = self.carry(far_in, near_out) => {}
            _ = epoch.changed() => {}
        }
    }

    async fn carry(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> std::io::Result<()> {
        let mut line = self.line.subscribe();
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let n = from.read(&mut bytes).await?;
            if n == 0 {
                return Ok(());
            }
            let now = *line.borrow_and_update();
            if let Line::Whole(slow) = now
                && !slow.is_zero()
            {
                sleep(slow.mul_f64(fastrand::f64())).await;
            }
            // Held back while it is silent. The sender lives in self.
            let _ = line.wait_for(|line| matches!(line, Line::Whole(_))).await;
            to.write_all(&bytes[..n]).await?;
        }
    }
}
