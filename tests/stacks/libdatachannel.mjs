// libdatachannel, as OBS uses it: no RTX, no MID in its packets, no transport-wide feedback, and as a viewer no NACK.

import { isRtcp, negotiate, ports, publishes, receive, relabelled, sender } from './stack.mjs';
import nodeDataChannel from 'node-datachannel';

const { Audio, PeerConnection, RtcpNackResponder, RtcpReceivingSession, Video } = nodeDataChannel;
const TYPES = { video: 96, audio: 111 };
const SSRCS = { video: 4711, audio: 4712 };

const pc = new PeerConnection('peer', { iceServers: [], disableAutoNegotiation: true });
const direction = publishes ? 'SendOnly' : 'RecvOnly';
const media = { audio: new Audio('audio', direction), video: new Video('video', direction) };
media.audio.addOpusCodec?.(TYPES.audio);
media.audio.addAudioCodec?.(TYPES.audio, 'opus');
media.video.addH264Codec(TYPES.video);

for (const kind of ['audio', 'video']) {
  if (publishes) media[kind].addSSRC(SSRCS[kind], 'libdatachannel', 'stream', kind);
  const track = pc.addTrack(media[kind]);
  if (publishes) {
    track.setMediaHandler(new RtcpNackResponder());
    receive(ports[kind], (packet) => {
      if (track.isOpen()) track.sendMessageBinary(relabelled(packet, TYPES[kind], SSRCS[kind]));
    });
  } else {
    track.setMediaHandler(new RtcpReceivingSession());
    const send = sender(ports[kind]);
    track.onMessage((packet) => isRtcp(packet) || send(packet));
    // It does not notice what it lacks.
    if (kind === 'video') setInterval(() => track.isOpen() && track.requestKeyframe(), 1000);
  }
}

pc.onGatheringStateChange(async (state) => {
  if (state !== 'complete') return;
  pc.setRemoteDescription(await negotiate(pc.localDescription().sdp), 'answer');
});
pc.onStateChange((state) => console.log(state));
pc.setLocalDescription('offer');
