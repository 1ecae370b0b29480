/** A server that does nothing but hand each frame to all others of its room (the URL's path): what `ws` alone costs. */
import { createServer } from "node:http"
import { WebSocketServer } from "ws"

const server = createServer((_, response) => response.end("ready")).listen(Number(process.env.PORT), "127.0.0.1")
const rooms = new Map()
new WebSocketServer({ server, perMessageDeflate: false }).on("connection", (socket, { url }) => {
  const room = rooms.get(url) ?? new Set()
  rooms.set(url, room.add(socket))
  socket.on("message", (frame) => {
    for (const other of room) if (other !== socket) other.send(frame)
  })
  socket.on("close", () => room.delete(socket))
})
