//! The fan-out benchmark.
//!
//! Never depends on a fake.
mod audience;
mod bare;
mod measure;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    use audience::*;
    use std::time::Duration;
    if std::env::args().nth(1).as_deref() == Some("bare") {
        return bare::serve().await;
    }
    let mut bare = bare::Bare::start().await?;
    let pid = bare.pid()?;
    let before = measure::resident(pid)?;
    let seats = vec![Seat { url: bare.url.clone(), hello: None }; 1000];
    let audience = Audience::seat(seats, &Manners::Silent).await?;
    println!("rss/session {}", (measure::resident(pid)? - before) / 1000);
    let cpu = measure::cpu(pid)?;
    let start = std::time::Instant::now();
    bare.write(1000, 300, 320).await?;
    audience.has_received(300_000, Duration::from_secs(30)).await?;
    println!("wall {:?} cpu {:?}", start.elapsed(), measure::cpu(pid)? - cpu);
    println!("{}", audience.leave().await?.len());
    Ok(())
}
