//! Traced packets as a pcapng file, with the verdict as each packet's comment.

use std::{borrow::Cow, io::Write, time::Duration};

use pcap_file::{
    DataLink, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

use super::packet::Packet;
use lb_common::abi::TRACE_BYTES;

/// A capture file.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    /// The names of the interfaces, by their number in the file.
    interfaces: Vec<String>,
}

impl<W: Write> Capture<W> {
    /// Begins the file.
    pub fn new(to: W) -> Result<Self, PcapError> {
        Ok(Self { writer: PcapNgWriter::new(to)?, interfaces: Vec::new() })
    }

    /// Writes a packet, and flushes: a reader may follow.
    pub fn write(&mut self, packet: &Packet, frame: &[u8]) -> Result<(), PcapError> {
        let interface_id = self.interface(&packet.interface)?;
        let service = packet.service.as_deref().unwrap_or("no service");
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::try_from_secs_f64(packet.time).unwrap_or_default(),
            original_len: packet.length,
            data: Cow::Borrowed(frame),
            options: vec![EnhancedPacketOption::Comment(format!("{service}: {} {}", packet.verdict, packet.reason).into())],
        };
        self.writer.write_pcapng_block(block)?;
        self.writer.get_mut().flush().map_err(PcapError::IoError)
    }

    fn interface(&mut self, name: &str) -> Result<u32, PcapError> {
        /// The writer gives times in billionths of a second.
        const NANOSECONDS: u8 = 9;
        if let Some(found) = self.interfaces.iter().position(|known| known == name) {
            return Ok(u32::try_from(found).unwrap_or(u32::MAX));
        }
        self.writer.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: u32::try_from(TRACE_BYTES).unwrap_or(u32::MAX),
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        })?;
        self.interfaces.push(name.to_owned());
        Ok(u32::try_from(self.interfaces.len() - 1).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    fn packet(interface: &str, time: f64) -> Packet {
        Packet {
            time,
            interface: interface.to_owned(),
            service: Some("web".to_owned()),
            verdict: "drop",
            reason: "land",
            source: None,
            destination: None,
            protocol: None,
            kind: None,
            length: 1_500,
        }
    }

    #[test]
    fn each_interface_is_described_once_and_each_packet_says_why() {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file).unwrap();
        for (interface, time) in [("eth0", 1_700_000_000.5), ("eth1", 1_700_000_001.0), ("eth0", 1_700_000_002.0)] {
            capture.write(&packet(interface, time), &[7; 60]).unwrap();
        }
        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(block) => interfaces.push(block.into_owned().options),
                Block::EnhancedPacket(block) => packets.push(block.into_owned()),
                _ => {}
            }
        }
        assert_eq!(interfaces.len(), 2);
        assert_eq!(packets.iter().map(|packet| packet.interface_id).collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!((packets[0].original_len, packets[0].data.len()), (1_500, 60));
        assert!(matches!(&packets[0].options[..], [EnhancedPacketOption::Comment(comment)] if comment == "web: drop land"));
    }
}
