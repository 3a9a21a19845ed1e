//! What finds room in the memory that an applier may take: encoders, pointers and unpackers.

use system_image_delta::patch::{
    Codec, LEAST_FOR_VIEWS, MEMORY_OF_NUMBERINGS, MEMORY_OF_POINTERS, PAGE, Remaker, Unpacker,
};

use crate::patch::plan::{Part, Plan, Source, Space, kind};
use crate::patch::view::View;

/// From how many bytes on some of what is left beside the least for views is for the numbers of types.
const ENOUGH_FOR_TYPES: u64 = 32 << 20;

/// What is left beside the numbers of types; nothing if there is no room for these.
pub(super) fn beside_types(spare: u64) -> Option<u64> {
    (spare >= ENOUGH_FOR_TYPES).then(|| spare - MEMORY_OF_NUMBERINGS)
}

/// Whether a member may be packed again where `spare` bytes are left beside the least for views.
pub(super) fn may_be_remade(codec: Codec, len: u64, spare: u64) -> bool {
    let encoder = Remaker::memory(codec, len);
    match codec {
        // A kernel: it is like the one before, which is shown by its blocks, and like nothing else.
        Codec::Lz4Legacy { .. } => {
            encoder + beside_encoder(unpacker(Codec::Lz4Block), true) <= spare + LEAST_FOR_VIEWS
        }
        // What is new in other members packs better plain, whether or not the old one can be shown.
        _ => encoder <= spare + LEAST_FOR_VIEWS,
    }
}

/// Whether pointers may be changed while a part is made.
pub(super) fn has_pointers(plan: &Plan, part: &Part, spare: u64) -> bool {
    encoder(plan, part) + MEMORY_OF_POINTERS <= spare
}

/// How many pages of what a view shows an applier has at least while a part is made.
pub(super) fn pages(plan: &Plan, part: &Part, view: usize, spare: u64) -> u64 {
    let left = spare + LEAST_FOR_VIEWS;
    let encoder = packed(plan, part).map_or(0, |(codec, len)| Remaker::memory_of(codec, len, left));
    let left = left.saturating_sub(encoder);
    let pointers = if has_pointers(plan, part, spare) {
        MEMORY_OF_POINTERS
    } else {
        0
    };
    // With a page for what is only estimated so far.
    let unpacker = of_view(&plan.views[view]);
    left.saturating_sub(pointers + unpacker) / PAGE as u64
}

/// Makes new what would be copied from views for whose unpackers there is no room.
pub(super) fn leave_out(plan: &mut Plan, spare: u64) {
    let unpackers = unpackers(plan);
    let may_have_pointers = may_have_pointers(plan);
    let mut parts = std::mem::take(&mut plan.parts);
    for part in &mut parts {
        let left = (spare + LEAST_FOR_VIEWS).saturating_sub(encoder(plan, part));
        for segment in &mut part.segments {
            let unpacker = of_source(&unpackers, &segment.source);
            if beside_encoder(unpacker, may_have_pointers) > left {
                segment.source = Source::New;
            }
        }
    }
    plan.parts = parts;
}

/// Memory in bytes that applying takes beside streams, blocks and digests.
pub(super) fn beside_streams(plan: &Plan, has_any_pointers: bool, spare: u64) -> u64 {
    let unpackers = unpackers(plan);
    let of_part = |part: &Part| {
        let each = part.segments.iter();
        let each = each.map(|segment| of_source(&unpackers, &segment.source));
        let beside = match each.max().unwrap_or(0) {
            largest if has_any_pointers && has_pointers(plan, part, spare) => {
                MEMORY_OF_POINTERS + largest.max(LEAST_FOR_VIEWS)
            }
            largest => beside_encoder(largest, has_any_pointers),
        };
        encoder(plan, part) + beside
    };
    plan.parts.iter().map(of_part).max().unwrap_or(0)
}

/// Whether there may be runs with pointers: only programs have some.
fn may_have_pointers(plan: &Plan) -> bool {
    let mut segments = plan.parts.iter().flat_map(|part| &part.segments);
    segments.any(|segment| matches!(segment.source, Source::Like(..)) && segment.kind == kind::CODE)
}

/// What is taken beside an encoder by unpacking that takes so much. If a patch has pointers at all, an
/// applier sets memory for them aside where so much is left, whether or not a part has some.
fn beside_encoder(unpacker: u64, has_pointers: bool) -> u64 {
    if unpacker <= LEAST_FOR_VIEWS || !has_pointers {
        unpacker
    } else {
        unpacker + MEMORY_OF_POINTERS
    }
}

/// What an unpacker and a page take.
fn unpacker(codec: Codec) -> u64 {
    match codec {
        Codec::Stored => 0,
        _ => Unpacker::memory(codec) + PAGE as u64,
    }
}

/// What the largest unpacker of each view takes.
fn unpackers(plan: &Plan) -> Vec<u64> {
    plan.views.iter().map(of_view).collect()
}

/// What the largest unpacker of a view and a page take.
fn of_view(view: &View) -> u64 {
    let rest = view.rest.iter().map(|shown| unpacker(shown.codec));
    rest.fold(unpacker(view.codec), u64::max)
}

/// What the encoder of a part takes at least.
fn encoder(plan: &Plan, part: &Part) -> u64 {
    packed(plan, part).map_or(0, |(codec, len)| Remaker::memory(codec, len))
}

/// How a part is packed, and its plain length in bytes.
fn packed(plan: &Plan, part: &Part) -> Option<(Codec, u64)> {
    let view = part.view.map(|view| &plan.views[view]);
    view.map(|view| (view.codec, view.plain_len))
}

/// What the unpacker of the view that a segment comes from takes.
fn of_source(unpackers: &[u64], source: &Source) -> u64 {
    match source {
        Source::Copy(place) | Source::Aligned(place) | Source::Like(place, _) => {
            match place.space {
                Space::View(view) => unpackers[view],
                Space::Base => 0,
            }
        }
        Source::New => 0,
    }
}
