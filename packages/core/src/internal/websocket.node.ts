import { WebSocket } from "ws"

/** Node 20 has no global WebSocket. Frames are not compressed: 7 kB a connection instead of 246. */
export const openWebSocket = (url: string): WebSocket =>
  new WebSocket(url, { perMessageDeflate: false, maxPayload: 16 * 1024 * 1024 })
