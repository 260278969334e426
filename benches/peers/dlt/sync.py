"""Loads Clerk's users with dlt's REST API source, as its documentation shows."""

import os
import sys

import dlt
from dlt.sources.rest_api import rest_api_source

database_url = os.environ["DATABASE_URL"]
# dlt keeps its state per database.
database = database_url.rpartition("/")[2].partition("?")[0]

source = rest_api_source(
    {
        "client": {
            "base_url": f"{os.environ['CLERK_API_URL']}/v1/",
            "auth": {"type": "bearer", "token": os.environ["CLERK_SECRET_KEY"]},
            # 500 is the largest page of Clerk. Clerk sends no total, so an empty page is the end.
            "paginator": {"type": "offset", "limit": 500, "total_path": None},
        },
        "resources": [
            {
                "name": "users",
                "primary_key": "id",
                "write_disposition": "merge",
                "endpoint": {"path": "users", "params": {"order_by": "+created_at"}},
            }
        ],
    },
    # Lists and objects as jsonb: one table instead of one per list, with all data.
    max_table_nesting=0,
)

if __name__ == "__main__":
    pipeline = dlt.pipeline(
        pipeline_name=f"clerk_{database}",
        destination=dlt.destinations.postgres(database_url),
        dataset_name="clerk",
        pipelines_dir=os.path.join(sys.argv[1], "pipelines"),
    )
    # COPY is faster than INSERT, although it reads an empty text as NULL.
    pipeline.run(source, loader_file_format="csv")
