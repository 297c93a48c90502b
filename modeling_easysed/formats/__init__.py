"""Files of events: JSON, JSONL, CSV, Audacity labels, Raven selection tables, RTTM and Parquet, written and read.

`files.read_events` and `files.write_events` are the way in; every other module holds one format or a part of it."""
