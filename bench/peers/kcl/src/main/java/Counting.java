// The KCL with the DynamoDB Streams adapter around a processor that counts records and keeps a
// position a second and shard, as the other peers do. Owns the peer's settings; what is measured of
// it is bench/peers/run's. A line on stdin asks for the counts, which are a line of JSON on stdout.

import com.amazonaws.services.dynamodbv2.streamsadapter.AmazonDynamoDBStreamsAdapterClient;
import com.amazonaws.services.dynamodbv2.streamsadapter.StreamsSchedulerFactory;
import com.amazonaws.services.dynamodbv2.streamsadapter.model.DynamoDBStreamsProcessRecordsInput;
import com.amazonaws.services.dynamodbv2.streamsadapter.polling.DynamoDBStreamsPollingConfig;
import com.amazonaws.services.dynamodbv2.streamsadapter.processor.DynamoDBStreamsShardRecordProcessor;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.LongAdder;
import java.util.stream.Collectors;
import software.amazon.awssdk.core.client.config.ClientOverrideConfiguration;
import software.amazon.awssdk.core.interceptor.Context;
import software.amazon.awssdk.core.interceptor.ExecutionAttributes;
import software.amazon.awssdk.core.interceptor.ExecutionInterceptor;
import software.amazon.awssdk.core.interceptor.SdkExecutionAttribute;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.dynamodb.streams.DynamoDbStreamsClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.exceptions.KinesisClientLibException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;

/** One worker; the keys and the region are the environment's. */
public final class Counting {
    private static final long CHECKPOINT_NANOS = 1_000_000_000L;
    private static final LongAdder RECORDS = new LongAdder();
    /** What was asked of the table, by operation. */
    private static final Map<String, LongAdder> TABLE = new ConcurrentHashMap<>();

    public static void main(String[] arguments) throws Exception {
        String streamArn = System.getenv("STREAM_ARN");
        URI table = URI.create(System.getenv("AWS_ENDPOINT_URL_DYNAMODB"));
        URI stream = URI.create(System.getenv("AWS_ENDPOINT_URL_DYNAMODB_STREAMS"));
        Region region = Region.of(System.getenv("AWS_REGION"));

        AmazonDynamoDBStreamsAdapterClient streams = new AmazonDynamoDBStreamsAdapterClient(
                DynamoDbStreamsClient.builder().endpointOverride(stream).region(region).build(), region);
        DynamoDbAsyncClient tables = DynamoDbAsyncClient.builder()
                .endpointOverride(table)
                .region(region)
                .overrideConfiguration(
                        ClientOverrideConfiguration.builder().addExecutionInterceptor(new CountingCalls()).build())
                .build();
        ConfigsBuilder configs = new ConfigsBuilder(
                StreamsSchedulerFactory.createSingleStreamTracker(
                        streamArn,
                        InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON)),
                System.getenv("CONSUMER_NAME"),
                streams,
                tables,
                CloudWatchAsyncClient.builder().region(region).build(),
                "worker",
                CountingProcessor::new);

        // What is not set here is the default of the two.
        DynamoDBStreamsPollingConfig polling = new DynamoDBStreamsPollingConfig(streamArn, streams);
        if (System.getenv("MAX_RECORDS") != null) {
            polling.maxRecords(Integer.parseInt(System.getenv("MAX_RECORDS")));
        }
        if (System.getenv("IDLE_MILLIS") != null) {
            polling.idleTimeBetweenReadsInMillis(Long.parseLong(System.getenv("IDLE_MILLIS")));
        }
        // The adapter sets the wait behind a shard sync to 0 for all, but too late for the first, which would
        // keep a new application waiting for a minute: set here, for the bench's time.
        // There is no CloudWatch here: without metrics the KCL does less than where it has one.
        Scheduler scheduler = StreamsSchedulerFactory.createScheduler(
                configs.checkpointConfig(),
                configs.coordinatorConfig(),
                configs.leaseManagementConfig().shardSyncIntervalMillis(0),
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                configs.retrievalConfig().retrievalSpecificConfig(polling),
                streams);
        Thread worker = new Thread(scheduler, "scheduler");
        worker.setDaemon(true);
        worker.start();

        BufferedReader asked = new BufferedReader(new InputStreamReader(System.in));
        while (asked.readLine() != null) {
            String calls = TABLE.entrySet().stream()
                    .map(entry -> String.format("\"%s\": %d", entry.getKey(), entry.getValue().sum()))
                    .collect(Collectors.joining(", "));
            System.out.printf("{\"records\": %d, \"table\": {%s}}%n", RECORDS.sum(), calls);
        }
        System.exit(0);
    }

    /** Counts the calls of a client by their operations. */
    private static final class CountingCalls implements ExecutionInterceptor {
        @Override
        public void beforeTransmission(Context.BeforeTransmission context, ExecutionAttributes attributes) {
            String operation = attributes.getAttribute(SdkExecutionAttribute.OPERATION_NAME);
            TABLE.computeIfAbsent(operation, name -> new LongAdder()).increment();
        }
    }

    /** Counts records, and looks at none. */
    private static final class CountingProcessor implements DynamoDBStreamsShardRecordProcessor {
        private long checkpointed = System.nanoTime();

        @Override
        public void initialize(InitializationInput input) {}

        @Override
        public void processRecords(DynamoDBStreamsProcessRecordsInput input) {
            RECORDS.add(input.records().size());
            long now = System.nanoTime();
            if (!input.records().isEmpty() && now - checkpointed >= CHECKPOINT_NANOS) {
                checkpointed = now;
                checkpoint(input.checkpointer());
            }
        }

        @Override
        public void leaseLost(LeaseLostInput input) {}

        @Override
        public void shardEnded(ShardEndedInput input) {
            checkpoint(input.checkpointer());
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            checkpoint(input.checkpointer());
        }

        private static void checkpoint(RecordProcessorCheckpointer checkpointer) {
            try {
                checkpointer.checkpoint();
            } catch (KinesisClientLibException failure) {
                System.err.println("a position was not written: " + failure);
            }
        }
    }
}
