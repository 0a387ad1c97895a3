#!/bin/bash
# Succeeds if this server answers clients and considers itself up and normal. It reads the ring from a table with
# cqlsh's driver, because `nodetool` starts a JVM each time, which takes longer than a probe may on a small machine.
exec python3 -S -c '
import socket, struct, sys
def ask(s, opcode, body):
    s.sendall(struct.pack(">BBhBi", 4, 0, 0, opcode, len(body)) + body)
    head = b""
    while len(head) < 9: head += s.recv(9 - len(head)) or sys.exit(1)
    left, data = struct.unpack(">i", head[5:])[0], b""
    while len(data) < left: data += s.recv(left - len(data)) or sys.exit(1)
    return head[4], data
s = socket.create_connection(("127.0.0.1", 9042), 4)
text = lambda t: struct.pack(">H", len(t)) + t
opcode, _ = ask(s, 1, struct.pack(">H", 1) + text(b"CQL_VERSION") + text(b"3.0.0"))
query = b"SELECT bootstrapped FROM system.local"
opcode, data = ask(s, 7, struct.pack(">i", len(query)) + query + struct.pack(">HB", 1, 0))
sys.exit(0 if opcode == 8 and b"COMPLETED" in data else 1)
'
