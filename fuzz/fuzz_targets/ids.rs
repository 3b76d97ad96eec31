//! Ranges of ids: any text is read or refused; both directions of what is read agree.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unionmount::ids::IdMap;

const OVERFLOW: u32 = 65534;

fuzz_target!(|input: (&str, [u32; 4])| {
    let (text, ids) = input;
    let Ok(map) = IdMap::parse(text, OVERFLOW) else {
        return;
    };
    let (described, _) = map.describe();
    let again = IdMap::parse(&described.unwrap_or_default(), OVERFLOW);
    assert_eq!(again.as_ref(), Ok(&map), "{text}");
    for id in ids {
        let shown = map.shown(id);
        // The overflow id may also be a proper one of some range.
        assert!(
            shown == OVERFLOW || map.stored(shown) == id,
            "{text}: {id} is shown as {shown}"
        );
        let stored = map.stored(id);
        assert!(
            stored == OVERFLOW || map.shown(stored) == id,
            "{text}: {id} is stored as {stored}"
        );
    }
});
