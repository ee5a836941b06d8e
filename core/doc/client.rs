use acb_sdk::{Client, Credentials};

pub async fn example(url: &str) -> acb_sdk::Result<()> {
    let client = Client::builder(url) // such as "acb://127.0.0.1:7400"
        .credentials(Credentials::dev("default", "planner"))
        .connect()
        .await?;
    client.agents().register("planner").await?;
    client.messages().publish("news.today", "it works").confirm().await?;
    client.drain().await?;
    Ok(())
}
