"""One agent asks, another answers. Without asyncio: the sync client has the same methods.

Start a server first: `acb-server --dev`. Then: `python request_reply.py`.
"""

import os
import threading

import acb_sdk


def client(agent: str) -> acb_sdk.Client:
    url = os.environ.get("ACB_URL", "acb://127.0.0.1:7400")
    return acb_sdk.Client(url, credentials=acb_sdk.Credentials.dev(agent))


def count_words(request: acb_sdk.Message) -> str:
    # What the handler returns is the reply. An exception gives the request back for another attempt.
    return str(len(request.text.split()))


def main() -> None:
    with client("asker") as asker, client("counter") as counter:
        asker.agents.register("asker")

        # Nobody can answer yet. That is said at once; there is nothing to wait for, and nothing is stored.
        try:
            asker.messages.request("counter", "how many words are these?")
        except acb_sdk.AcbError as error:
            print(f"nobody answers: {error.code}")

        # The one who answers registers, and serves its inbox: here up to four requests at a time, in threads.
        counter.agents.register("counter", capabilities=["words.count"])
        serving = threading.Thread(target=counter.serve, args=(count_words,), kwargs={"concurrency": 4})
        serving.start()

        # A request is a message with a deadline; it gives the reply.
        for question in ("how many words are these?", "one", ""):
            while True:
                try:
                    reply = asker.messages.request("counter", question, timeout=5)
                    break
                except acb_sdk.UnavailableError:
                    # The counter's inbox is not open yet.
                    continue
            print(f"{question!r} has {reply.text} words")

        # Drain lets running handlers finish; the loop over the inbox then ends by itself.
        counter.drain()
        serving.join()


if __name__ == "__main__":
    main()
