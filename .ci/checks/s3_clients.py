"""Asks content-service and its store the same things from outside: see s3-clients.sh."""

import base64
import contextlib
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

BUF = sys.argv[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug"
# Those of the tests' S3 server.
KEY_ID, SECRET, BUCKET = "testkit", "testkit-secret", "blobs"
MIB = 1024 * 1024


def body(size):
    """Bytes without a short period."""
    return hashlib.shake_256(str(size).encode()).digest(size)


@contextlib.contextmanager
def process(program, **settings):
    started = subprocess.Popen(
        program, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield started
    finally:
        started.stdin.close()
        started.terminate()
        started.wait(30)


class ContentService:
    """A content-service, and calls to it."""

    def __init__(self, started):
        for line in started.stderr:
            said = json.loads(line)
            port = said.get("server.port") or said.get("fields", {}).get("server.port")
            if port and "signed" not in line.decode():
                self.url = f"http://127.0.0.1:{port}/synap.content.v1.ContentService/"
                return
        raise SystemExit(f"content-service ended with {started.wait()}")

    def call(self, method, *messages):
        command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", "@-"]
        data = "\n".join(json.dumps(message) for message in messages)
        answer = subprocess.run(
            [*command, self.url + method], input=data.encode(), capture_output=True, check=False
        )
        if answer.returncode:
            raise SystemExit(f"{method}: {answer.stderr.decode()}")
        return answer.stdout.decode()

    def put(self, key, data):
        spec = {"key": key, "size": len(data)}
        spec["sha256"] = base64.b64encode(hashlib.sha256(data).digest()).decode()
        messages = [{"spec": spec}]
        for at in range(0, len(data), MIB):
            messages.append({"data": base64.b64encode(data[at : at + MIB]).decode()})
        self.call("PutBlob", *messages)

    def get(self, key):
        answer, text, data = json.JSONDecoder(), self.call("GetBlob", {"key": key}), b""
        while text := text.lstrip():
            message, end = answer.raw_decode(text)
            data += base64.b64decode(message.get("data", ""))
            text = text[end:]
        return data

    def sign(self, **wish):
        return json.loads(self.call("SignUrl", wish))

    def sign_put(self, key, data, expires_in="60s"):
        sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()
        wish = {"method": "SIGNED_METHOD_PUT", "size": len(data), "sha256": sha256}
        return self.sign(key=key, expires_in=expires_in, **wish)


def curl(signed, data=None, change=None, url=None):
    """The status of the request that a signed URL describes, or one with other headers."""
    command = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
    command += ["--request", signed["method"], "--max-time", "30"]
    for name, value in {**signed.get("headers", {}), **(change or {})}.items():
        command += ["--header", f"{name}: {value}" if value else f"{name};"]
    if data is not None:
        command += ["--data-binary", "@-"]
    command.append(url or signed["url"])
    return int(subprocess.run(command, input=data, capture_output=True, check=False).stdout)


def expect(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {str(found)[:200]}, expected {str(expected)[:200]}")


def boto3_and_we_agree(ours, endpoint):
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}),
    )
    written = {}
    for size in (0, 3000, 12 * MIB):
        key = f"users/ada%40example%2Eorg/notes/ours-{size}.md"
        written[key] = body(size)
        ours.put(key, written[key])
        found = s3.get_object(Bucket=BUCKET, Key=key)
        expect(f"boto3 reads our {size} bytes", found["Body"].read() == written[key], True)
        expect("their type", found["ContentType"], "text/markdown; charset=utf-8")
    # s3s-fs says that it encoded the keys, and did not. Asked for by us, boto3 leaves them alone.
    listing = s3.list_objects_v2(Bucket=BUCKET, Prefix="users/ada%40", EncodingType="url")
    found = {entry["Key"]: entry["Size"] for entry in listing["Contents"]}
    expect("boto3 lists", found, {key: len(data) for key, data in written.items()})

    key, data = "users/u/files/single.pdf", body(5000)
    s3.put_object(Bucket=BUCKET, Key=key, Body=data, ContentType="application/pdf")
    expect("we read what boto3 put", ours.get(key) == data, True)
    key, data = "users/u/files/parts.pdf", body(13 * MIB)
    parts = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(io.BytesIO(data), BUCKET, key, Config=parts)
    expect("we read what boto3 put in parts", ours.get(key) == data, True)


def curl_keeps_to_signed_urls(ours, store):
    key, data = "users/u/files/signed.pdf", body(5000)
    signed = ours.sign_put(key, data)
    other_sum = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    for what, status, request in [
        ("a shorter body", 403, {"data": data[1:]}),
        ("a longer body", 403, {"data": data + b"."}),
        ("another type", 403, {"data": data, "change": {"content-type": "text/html"}}),
        ("another sum", 403, {"data": data, "change": {"x-amz-checksum-sha256": other_sum}}),
        ("to overwrite", 403, {"data": data, "change": {"if-none-match": ""}}),
        ("another key", 403, {"data": data, "url": signed["url"].replace("signed.pdf", "x.pdf")}),
        ("no signature", 403, {"data": data, "url": signed["url"].split("?")[0]}),
        ("the promised body", 200, {"data": data}),
        ("the promised body again", 412, {"data": data}),
    ]:
        expect(f"{store}, PUT of {what}", curl(signed, **request), status)
    expect(f"{store}: what curl put", ours.get(key) == data, True)

    other = ours.sign_put("users/u/files/other.pdf", data)
    expect(f"{store}, PUT of another body", curl(other, data=data[1:] + b"."), 400)

    short = ours.sign_put("users/u/files/late.pdf", data, expires_in="1s")
    time.sleep(2.1)
    expect(f"{store}, PUT too late", curl(short, data=data), 403)

    wish = {"key": key, "method": "SIGNED_METHOD_GET", "file_name": "Bericht.pdf"}
    signed = ours.sign(expires_in="60s", **wish)
    found = subprocess.run(["curl", "--silent", signed["url"]], capture_output=True, check=True)
    expect(f"{store}: what curl reads", found.stdout == data, True)
    part = ["curl", "--silent", "--range", "100-199", signed["url"]]
    found = subprocess.run(part, capture_output=True, check=True)
    expect(f"{store}: a range", found.stdout == data[100:200], True)
    tampered = signed["url"].replace("Bericht", "Befund")
    expect(f"{store}: a tampered URL", curl(signed, url=tampered), 403)


def main():
    free = {"CONTENT_LISTEN": "127.0.0.1:0", "CONTENT_HTTP_LISTEN": "127.0.0.1:0"}
    free |= {"LOG_FORMAT": "json", "PATH": os.environ["PATH"]}
    service = TARGET / "content-service"
    with contextlib.ExitStack() as all_of_it:
        start = lambda *a, **k: all_of_it.enter_context(process(*a, **k))
        endpoint = start(TARGET / "examples/s3_server").stdout.readline().decode().strip()
        access = {"R2_ACCESS_KEY_ID": KEY_ID, "R2_SECRET_ACCESS_KEY": SECRET}
        access |= {"S3_ENDPOINT": endpoint, "R2_BUCKET_NAME": BUCKET}
        on_s3 = ContentService(start(service, **free, **access))
        directory = all_of_it.enter_context(tempfile.TemporaryDirectory())
        on_disk = ContentService(start(service, **free, BLOB_DIR=directory + "/blobs"))
        boto3_and_we_agree(on_s3, endpoint)
        curl_keeps_to_signed_urls(on_s3, "S3")
        curl_keeps_to_signed_urls(on_disk, "local")


main()
