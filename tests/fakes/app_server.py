"""A scripted stand-in for ``codex app-server``: answers the handshake, then plays a JSON script.

Use: ``python app_server.py SCRIPT.json``. The script is an object:

``hang_at`` / ``exit_at``: ``initialize``, ``thread/start`` or ``turn/start``; ``exit_code``.
``refuse``: methods that are answered with an error.
``turns``: a list of lists of steps, one list a turn (the last one repeats). Steps:
  {"notify": METHOD, "params": {...}}      threadId and turnId are filled in
  {"ask": METHOD, "params": {...}}         a server request; its answer is recorded
  {"tool": NAME, "arguments": {...}}       an item/tool/call
  {"raw": TEXT}                            a line as it is
  {"stderr": TEXT}
  {"wait_for": PATH}                       goes on once the file exists
  {"hang": true}                           silence until interrupted or closed
  {"exit": CODE}
  {"status": "completed"|"failed"|"interrupted", "error": {...}}   ends the turn
``preview``: the preview of a thread that is resumed.
``stumbles``: so many starts, by the record, say on stderr that links could not be made.
``record``: a file that gets one JSON line for everything received, and for start and end of input.
``linger``: ignore end of input and SIGTERM.
``deaf``: ignore ``turn/interrupt``.
Written with the standard library only: it runs outside the project's environment too.
"""

import json
import os
import signal
import sys
import threading
import time


class Server:
    def __init__(self, script):
        self.script = script
        self.record_path = script.get("record")
        self.thread = f"thr-{os.getpid()}"
        self.turns = 0
        self.asked = 0
        self.answers = {}
        self.arrived = threading.Condition()
        self.interrupted = threading.Event()
        self.turn = None

    def record(self, **entry):
        if self.record_path:
            line = json.dumps({"at": time.monotonic(), "pid": os.getpid(), **entry})
            with open(self.record_path, "a") as file:
                file.write(line + "\n")

    def send(self, message):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def serve(self):
        self.record(event="start", cwd=os.getcwd(), env=dict(os.environ))
        if self.script.get("stumbles"):
            with open(self.record_path) as file:
                starts = sum(json.loads(line)["event"] == "start" for line in file)
            if starts <= self.script["stumbles"]:
                sys.stderr.write(
                    "WARNING: proceeding, even though we could not create PATH aliases: "
                    "No such file or directory (os error 2)\n"
                )
                sys.stderr.flush()
        for line in sys.stdin:
            message = json.loads(line)
            self.record(event="received", message=message)
            if "method" in message:
                self.obey(message)
            else:
                with self.arrived:
                    self.answers[message.get("id")] = message
                    self.arrived.notify_all()
        self.record(event="eof")
        if self.script.get("linger"):
            while True:
                time.sleep(3600)
        os._exit(0)

    def obey(self, message):
        method, number = message["method"], message.get("id")
        if self.script.get("exit_at") == method:
            sys.stderr.write(self.script.get("last_words", "") + "\n")
            sys.stderr.flush()
            os._exit(self.script.get("exit_code", 7))
        if self.script.get("hang_at") == method:
            return
        if number is None:
            return
        if method in self.script.get("refuse", ()):
            self.send({"id": number, "error": {"code": -32600, "message": f"no {method} here"}})
        elif method == "initialize":
            agent = self.script.get("user_agent", "fake")
            self.send({"id": number, "result": {"userAgent": agent}})
        elif method in ("thread/start", "thread/resume"):
            thread = {"id": self.thread}
            if method == "thread/resume" and "preview" in self.script:
                thread["preview"] = self.script["preview"]
            self.send({"id": number, "result": {"thread": thread}})
        elif method == "turn/start":
            self.turns += 1
            self.turn = f"turn-{self.turns}"
            self.interrupted.clear()
            self.send({"id": number, "result": {"turn": {"id": self.turn, "status": "inProgress"}}})
            threading.Thread(target=self.play, args=(self.turn,), daemon=True).start()
        elif method == "turn/interrupt" and self.script.get("deaf"):
            return
        elif method == "turn/interrupt":
            self.interrupted.set()
            self.send({"id": number, "result": {}})
        else:
            self.send({"id": number, "result": {}})

    def play(self, turn):
        turns = self.script.get("turns") or [[{"status": "completed"}]]
        for step in turns[min(self.turns, len(turns)) - 1]:
            if self.interrupted.is_set():
                break
            if self.step(turn, step):
                return
        self.end(turn, "interrupted" if self.interrupted.is_set() else "completed", None)

    def step(self, turn, step):
        where = {"threadId": self.thread, "turnId": turn}
        if "notify" in step:
            self.send({"method": step["notify"], "params": {**where, **step.get("params", {})}})
        elif "ask" in step:
            self.ask(step["ask"], {**where, "itemId": "item-1", **step.get("params", {})})
        elif "tool" in step:
            params = {"callId": f"call-{self.asked}", "tool": step["tool"], "namespace": None}
            self.ask("item/tool/call", {**where, **params, "arguments": step.get("arguments", {})})
        elif "raw" in step:
            sys.stdout.write(step["raw"] + "\n")
            sys.stdout.flush()
        elif "stderr" in step:
            sys.stderr.write(step["stderr"] + "\n")
            sys.stderr.flush()
        elif "wait_for" in step:
            while not os.path.exists(step["wait_for"]):
                time.sleep(0.01)
        elif "hang" in step:
            self.interrupted.wait()
        elif "exit" in step:
            os._exit(step["exit"])
        elif "status" in step:
            self.end(turn, step["status"], step.get("error"))
            return True
        return False

    def ask(self, method, params):
        number, self.asked = self.asked, self.asked + 1
        self.send({"id": number, "method": method, "params": params})
        with self.arrived:
            self.arrived.wait_for(lambda: number in self.answers or self.interrupted.is_set())

    def end(self, turn, status, error):
        body = {"id": turn, "items": [], "status": status, "error": error}
        self.send({"method": "turn/completed", "params": {"threadId": self.thread, "turn": body}})


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        chosen = json.load(file)
    if chosen.get("linger"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Server(chosen).serve()
