//! A worker's way to the stream: the simulator behind the network.
//!
//! Owns the way only; what the stream does and how it fails is the simulator's own.

use super::network::Node;
use super::world::World;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use streamgate::source::{
    IteratorPosition, Page, Shard, ShardId, ShardIterator, Source, SourceError, SourceErrorKind,
    SourceOperation, StreamDescription,
};
use tokio::sync::oneshot;

/// About as the SDK has it, with its second try.
const PATIENCE: Duration = Duration::from_secs(10);

/// One worker's view of the stream.
pub struct Line {
    world: Arc<World>,
    worker: usize,
}

impl Line {
    pub fn new(world: Arc<World>, worker: usize) -> Self {
        Self { world, worker }
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: SourceOperation,
        call: impl Future<Output = Result<T, SourceError>> + Send + 'static,
    ) -> Result<T, SourceError> {
        let (answer, answered) = oneshot::channel();
        let (world, here) = (Arc::clone(&self.world), Node::Worker(self.worker));
        self.world.handle.spawn(async move {
            if !world.network.carry(here, Node::Stream).await {
                return;
            }
            let reply = call.await;
            if world.network.carry(Node::Stream, here).await {
                let _ = answer.send(reply);
            }
        });
        let failed = |message: &str| SourceError {
            operation,
            kind: SourceErrorKind::Unavailable,
            message: message.to_owned(),
        };
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(failed("the connection broke")),
            Err(_) => Err(failed("no answer in time")),
        }
    }
}

#[async_trait]
impl Source for Line {
    async fn describe(&self) -> Result<StreamDescription, SourceError> {
        let stream = self.world.simulator.clone();
        self.call(SourceOperation::DescribeStream, async move { stream.describe().await }).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let (stream, parent) = (self.world.simulator.clone(), parent.clone());
        let call = async move { stream.children(&parent).await };
        self.call(SourceOperation::DescribeStream, call).await
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, SourceError> {
        let stream = self.world.simulator.clone();
        let at_tip = *position == IteratorPosition::Latest;
        let (here, position) = (shard.clone(), position.clone());
        let call = async move { stream.iterator(&here, &position).await };
        let iterator = self.call(SourceOperation::GetShardIterator, call).await?;
        if at_tip {
            self.world.judge().reads_from_tip(shard);
        }
        Ok(iterator)
    }

    async fn records(&self, iterator: &ShardIterator) -> Result<Page, SourceError> {
        let (stream, iterator) = (self.world.simulator.clone(), iterator.clone());
        let call = async move { stream.records(&iterator).await };
        self.call(SourceOperation::GetRecords, call).await
    }
}
