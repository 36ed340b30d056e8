//! Names of containers that nobody chose.

/// The first words of the names that Docker makes up; the second is somebody's name.
const MADE_UP: &str = "admiring adoring affectionate agitated amazing angry awesome beautiful \
    blissful bold boring brave busy charming clever compassionate competent condescending \
    confident cool cranky crazy dazzling determined distracted dreamy eager ecstatic elastic \
    elated elegant eloquent epic exciting fervent festive flamboyant focused friendly frosty \
    funny gallant gifted goofy gracious great happy hardcore heuristic hopeful hungry infallible \
    inspiring intelligent interesting jolly jovial keen kind laughing loving lucid magical modest \
    musing mystifying naughty nervous nice nifty nostalgic objective optimistic peaceful pedantic \
    pensive practical priceless quirky quizzical recursing relaxed reverent romantic sad serene \
    sharp silly sleepy stoic strange stupefied suspicious sweet tender thirsty trusting unruffled \
    upbeat vibrant vigilant vigorous wizardly wonderful xenodochial youthful zealous zen";

/// Returns true if Docker made this name up, or podman, which has the same words: an adjective and
/// a surname, and perhaps a digit.
pub fn is_made_up(name: &str) -> bool {
    let Some((adjective, surname)) = name.split_once('_') else {
        return false;
    };
    let surname = surname.trim_end_matches(|c: char| c.is_ascii_digit());
    surname.bytes().all(|byte| byte.is_ascii_lowercase())
        && !surname.is_empty()
        && MADE_UP
            .split_ascii_whitespace()
            .any(|word| word == adjective)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_known() {
        for name in ["happy_curie", "zen_wu", "sharp_hopper3"] {
            assert!(is_made_up(name), "{name}");
        }
        for name in [
            "web-1",
            "web_1",
            "my_db",
            "happy",
            "happy_",
            "happy_7",
            "happy_db_2",
            "",
        ] {
            assert!(!is_made_up(name), "{name}");
        }
    }
}
